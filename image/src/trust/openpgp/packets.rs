//! From the bytes of a file to OpenPGP packets, strictly.
//!
//! Tools disagree on what a file with several blocks, text around a block, or packets of other kinds means, and
//! forgeries have lived off that. Here a file is armoured blocks of the one kind that is wanted with white space
//! between them, or it is packets; anything else is refused before a packet is parsed.

use std::io::Read;

use sequoia_openpgp::armor;

const BEGIN: &str = "-----BEGIN PGP ";
const END: &str = "-----END PGP ";

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Signature,
    PublicKeys,
}

impl Content {
    fn kind(self) -> armor::Kind {
        match self {
            Content::Signature => armor::Kind::Signature,
            Content::PublicKeys => armor::Kind::PublicKey,
        }
    }

    /// As the lines around a block have it.
    fn label(self) -> &'static str {
        match self {
            Content::Signature => "SIGNATURE",
            Content::PublicKeys => "PUBLIC KEY BLOCK",
        }
    }

    /// Several files of keys can be put behind each other; a signature is one.
    fn blocks_max(self) -> usize {
        match self {
            Content::Signature => 1,
            Content::PublicKeys => super::KEYS_MAX,
        }
    }
}

/// The packets of a file, each block on its own.
pub(super) fn of_file(bytes: &[u8], content: Content) -> Result<Vec<Vec<u8>>, String> {
    match bytes.first() {
        None => Err("it is empty".into()),
        // RFC 9580 section 4.2: the first bit of every packet is set, that of armour never.
        Some(first) if first & 0x80 != 0 => Ok(vec![bytes.to_vec()]),
        Some(_) => blocks(bytes, content),
    }
}

fn blocks(bytes: &[u8], content: Content) -> Result<Vec<Vec<u8>>, String> {
    let no_openpgp = "it is no OpenPGP file, neither armoured nor binary";
    let text = std::str::from_utf8(bytes).map_err(|_| no_openpgp)?;
    let mut rest = text.trim();
    if !rest.starts_with(BEGIN) {
        let inside = if rest.contains(BEGIN) { "there is text before the armour" } else { no_openpgp };
        return Err(inside.into());
    }
    let mut found = Vec::new();
    while !rest.is_empty() {
        if found.len() == content.blocks_max() {
            return Err("something follows the end of the armour".into());
        }
        let (block, behind) = first_block(rest, content)?;
        found.push(dearmoured(block, content)?);
        rest = behind.trim_start();
    }
    Ok(found)
}

/// Splits the first block off.
fn first_block(text: &str, content: Content) -> Result<(&str, &str), String> {
    let label = content.label();
    let begin = format!("{BEGIN}{label}-----");
    let Some(inner) = text.strip_prefix(&begin) else {
        let line = text.lines().next().unwrap_or_default();
        let said = line.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix("-----"));
        return Err(match said {
            Some("PRIVATE KEY BLOCK") => "it holds a private key".to_owned(),
            Some(said) => format!("it holds `{}`, not `{label}`", said.escape_debug()),
            None => "something follows the end of the armour".into(),
        });
    };
    let end = format!("{END}{label}-----");
    let length = inner.find(&end).ok_or("its armour has no end")?;
    if inner[..length].contains("-----") {
        return Err("its armour is broken".into());
    }
    Ok(text.split_at(begin.len() + length + end.len()))
}

fn dearmoured(block: &str, content: Content) -> Result<Vec<u8>, String> {
    let mode = armor::ReaderMode::Tolerant(Some(content.kind()));
    let mut packets = Vec::new();
    let read = armor::Reader::from_bytes(block.as_bytes(), mode).read_to_end(&mut packets);
    read.map_err(|e| format!("its armour is broken ({e})"))?;
    Ok(packets)
}
