//! A whole conversion: layers in, an image out, read again by the code that reads images.
//!
//! The input is a list of short orders and not an archive, whose checksums would refuse most changes at once
//! (`converter-entries` is for those). Few names, so that entries of different layers meet.

use hull_image::fuzzing::sound_file_system;

const BLOCK: usize = 512;

/// Most entries of one input.
const ENTRIES_MAX: usize = 200;

/// Parts of paths; the last ones are whiteouts.
const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"!",
    b"-",
    b"..a",
    b".-",
    b"lib",
    &[b'n'; 99],
    b"./",
    b"/d",
    b".wh.a",
    b".wh.b",
    b".wh.lib",
    b".wh..wh..opq",
    b".wh.",
];

const KINDS: [u8; 8] = *b"00012534";

pub(crate) fn whole(bytes: &[u8]) {
    let layers = layers(bytes);
    let Some(image) = hull_converter::fuzzing::conversion(&layers) else { return };
    // Whatever became of a file, every byte in it says how long it is.
    sound_file_system(&image, |content| {
        assert!(
            content.iter().all(|byte| *byte == filling(content.len())),
            "a file holds what was put there"
        );
    });
    let again = hull_converter::fuzzing::conversion(&layers);
    assert!(again.is_some_and(|again| again == image), "the same layers make the same image");
}

/// What a converter that was taken over says.
pub(crate) fn answer(bytes: &[u8]) {
    let file = std::fs::File::open("/dev/null").expect("every host has it");
    hull_image::fuzzing::converter_answer(bytes, &file);
}

fn filling(size: usize) -> u8 {
    1 + (size % 255) as u8
}

/// Four bytes an order: what it is, its path, its size or target, its attributes.
fn layers(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut layers = vec![Vec::new()];
    for order in bytes.chunks_exact(4).take(ENTRIES_MAX) {
        let [what, name, other, attributes] = *order else { unreachable!("they are four") };
        if what == 0xff {
            layers.push(Vec::new());
        }
        let layer = layers.last_mut().expect("there is one from the start");
        if attributes >= 0x40 {
            let size = usize::from(attributes - 0x40) * 40;
            extended(
                layer,
                &[b"SCHILY.xattr.user.", &*vec![b'x'; size % 250], b"=", &vec![b'v'; size]].concat(),
            );
        }
        entry(layer, KINDS[usize::from(what % 8)], &path(name), other);
    }
    layers
}

/// Up to two parts, or three with one in a folder that is often there.
fn path(choice: u8) -> Vec<u8> {
    let part = |index: u8| NAMES[usize::from(index % 16)];
    match choice / 16 {
        0 => part(choice).to_vec(),
        15 => [b"lib", part(choice), b"c"].join(b"/".as_slice()),
        first => [part(first), part(choice)].join(b"/".as_slice()),
    }
}

fn entry(layer: &mut Vec<u8>, kind: u8, path: &[u8], other: u8) {
    let size = match (kind, other) {
        // On both sides of what fits beside an inode, and of a block.
        (b'0', 0xf0..) => 4000 + usize::from(other - 0xf0) * 8,
        (b'0', 0xe0..) => 4090 + usize::from(other - 0xe0),
        (b'0', 0xc0..) => usize::from(other) * 300,
        (b'0', _) => usize::from(other),
        _ => 0,
    };
    let target = if matches!(kind, b'1' | b'2') { self::path(other) } else { Vec::new() };
    header(layer, kind, path, size, &target);
    layer.resize(layer.len() + size, filling(size));
    layer.resize(layer.len().next_multiple_of(BLOCK), 0);
}

fn extended(layer: &mut Vec<u8>, record: &[u8]) {
    let rest = record.len() + 2;
    let length = (rest..).find(|length| rest + length.to_string().len() == *length);
    let length = length.expect("a number is shorter than what it counts");
    let content = [format!("{length} ").as_bytes(), record, b"\n"].concat();
    header(layer, b'x', b"pax", content.len(), b"");
    layer.extend_from_slice(&content);
    layer.resize(layer.len().next_multiple_of(BLOCK), 0);
}

fn header(layer: &mut Vec<u8>, kind: u8, path: &[u8], size: usize, target: &[u8]) {
    let mut header = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    // Longer ones are cut: into names that end in the middle.
    put(0, &path[..path.len().min(100)]);
    put(100, b"0000755\x000000000\x000000000\x00");
    put(124, format!("{size:011o}\x0000000000000\0        ").as_bytes());
    put(156, &[kind]);
    put(157, &target[..target.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, b"0000001\x000000003\x00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    layer.extend_from_slice(&header);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_make_images_and_not_only_refusals() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/converter-conversion");
        for seed in std::fs::read_dir(corpus).unwrap() {
            let path = seed.unwrap().path();
            let layers = layers(&std::fs::read(&path).unwrap());
            assert!(hull_converter::fuzzing::conversion(&layers).is_some(), "{}", path.display());
        }
    }
}
