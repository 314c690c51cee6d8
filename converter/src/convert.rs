//! Layers in, EROFS image out.

#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader};

use hull_converter_protocol::{
    BUFFER_SIZE, Flavour, Hashing, ImageId, Kind, LAYERS_MAX, Layer, UNCOMPRESSED_MAX, Window, shown,
};

use crate::Error;
use crate::decompress::{Limited, uncompressed};
use crate::erofs::{self, DataArea, is_short};
use crate::error::{reading, way_out, writing};
use crate::scratch::{Pages, Tail, Tails};
use crate::tar_stream::{Content, Entry, EntryKind, TarStream};
use crate::tree::{Extent, Facts, New, NodeKind, Tree, TreePath, Trouble};
use crate::whitelist::Whitelist;

/// Writes the image `id` to `output`, an empty file.
pub(crate) fn convert<'a>(
    id: &ImageId,
    layers: impl ExactSizeIterator<Item = (&'a Layer, &'a File)>,
    output: &File,
) -> Result<(), Error> {
    if layers.len() == 0 {
        return Err(Error::new(Kind::Corrupt, format!("convert image {id}: it has no layers")));
    }
    if layers.len() > LAYERS_MAX {
        let text = format!("convert image {id}: {} layers, at most {LAYERS_MAX} are accepted", layers.len());
        return Err(Error::new(Kind::TooLarge, text));
    }
    let budget = Cell::new(UNCOMPRESSED_MAX);
    let cannot_write = |e: io::Error| {
        Error::because(writing(&e), format!("write the metadata of image {id}{}", way_out(&e)), e)
    };
    let tree = Tree::new(Pages::new(output)).map_err(cannot_write)?;
    let mut conversion = Conversion { tree, data: DataArea::new(output), tails: Tails::new(output) };
    for (index, (layer, file)) in layers.enumerate() {
        if index > 0 {
            conversion.tree.next_layer();
        }
        conversion.layer(layer, file, &budget)?;
    }
    let Conversion { mut tree, data, tails } = conversion;
    erofs::finish(data, tails, output, &mut tree, id.first_bytes()).map_err(cannot_write)
}

struct Conversion<'a> {
    tree: Tree<'a>,
    data: DataArea<'a>,
    /// The contents of short files.
    tails: Tails<'a>,
}

/// What is to be done with the entries of a layer.
enum Rules {
    Oci,
    Aci(Whitelist),
}

/// What the bytes of a layer pass through: hashed as they come out of the decompressor.
type Input<'a> = BufReader<Hashing<Limited<'a>>>;

impl Conversion<'_> {
    fn layer(&mut self, layer: &Layer, file: &File, budget: &Cell<u64>) -> Result<(), Error> {
        let name = format!("layer {}", layer.digest);
        let algorithm = match &layer.flavour {
            Flavour::Oci { diff_id } => diff_id.algorithm(),
            Flavour::Aci { .. } => layer.digest.algorithm(),
        };
        let rules = match &layer.flavour {
            Flavour::Oci { .. } => Rules::Oci,
            Flavour::Aci { whitelist, whitelist_above } => {
                let whitelist = Whitelist::new(whitelist, whitelist_above);
                Rules::Aci(whitelist.map_err(|e| Error::new(Kind::Corrupt, format!("convert {name}: {e}")))?)
            }
        };
        let plain = uncompressed(Window::whole(file), budget);
        let plain = plain.map_err(|e| Error::because(reading(&e), format!("uncompress {name}"), e))?;
        let input = BufReader::with_capacity(BUFFER_SIZE, Hashing::new(plain, algorithm));
        let mut tar: TarStream<Input<'_>> = TarStream::new(input, name.as_str());
        while let Some(entry) = tar.next_entry()? {
            let shown = shown(&entry.path);
            let done = self.entry(entry, &rules, &mut tar);
            done.and_then(|()| Ok(self.give_back()?)).map_err(|stop| match stop {
                Stop::Refused(text) => {
                    Error::new(Kind::Corrupt, format!("convert {name}: entry `{shown}`: {text}"))
                }
                Stop::Unreadable(error) => error,
                Stop::Unwritable(e) => {
                    let doing =
                        format!("convert {name}: entry `{shown}`: write it to the image{}", way_out(&e));
                    Error::because(writing(&e), doing, e)
                }
            })?;
        }
        let forgotten = self.tree.forget_hidden().and_then(|()| self.give_back());
        forgotten.map_err(|e| Error::because(writing(&e), format!("convert {name}{}", way_out(&e)), e))?;
        let got = tar.finish()?.into_inner().finish();
        match &layer.flavour {
            Flavour::Oci { diff_id } if *diff_id != got => {
                let text = format!(
                    "{name}: uncompressed it has the digest {got}, the image's config says {diff_id}"
                );
                Err(Error::new(Kind::Corrupt, text))
            }
            _ => Ok(()),
        }
    }

    fn entry(&mut self, entry: Entry, rules: &Rules, tar: &mut TarStream<Input<'_>>) -> Result<(), Stop> {
        let path = TreePath::parse(&entry.path)?;
        let path = match rules {
            Rules::Oci if self.white_out(&path)? => None,
            Rules::Oci => Some(path),
            Rules::Aci(_) => below_rootfs(&path, &entry.kind)?,
        };
        let Some(path) = path else { return Ok(()) };
        let is_directory = matches!(entry.kind, EntryKind::Directory);
        let hides = !shows(rules, &path, is_directory);
        if hides && is_directory {
            return Ok(());
        }
        let facts = Facts { attributes: entry.attributes, xattrs: erofs::xattr_body(&entry.xattrs) };
        let new = match entry.kind {
            EntryKind::Directory => New::Directory(facts),
            EntryKind::HardLink(target) => {
                let target = link_target(&target, rules)?;
                match self.tree.hidden(&target)? {
                    Some(node) if !hides => New::Again(node),
                    _ => New::HardLink(target),
                }
            }
            EntryKind::File(content) => New::Other(self.content(&content, facts.xattrs.len(), tar)?, facts),
            EntryKind::Symlink(target) => New::Symlink(target, facts),
            EntryKind::CharacterDevice(number) => New::Other(NodeKind::CharacterDevice(number), facts),
            EntryKind::BlockDevice(number) => New::Other(NodeKind::BlockDevice(number), facts),
            EntryKind::Fifo => New::Other(NodeKind::Fifo, facts),
        };
        // A hard link that shows may follow what does not.
        let done = if hides { self.tree.hide(&path, new) } else { self.tree.put(&path, new) };
        Ok(done?)
    }

    /// Carries out a whiteout; `false` if the path is none.
    fn white_out(&mut self, path: &TreePath) -> Result<bool, Stop> {
        const PREFIX: &[u8] = b".wh.";
        let reserved = |part: &[u8]| part.starts_with(PREFIX);
        let Some((name, mut parents)) = path.split_last() else { return Ok(false) };
        if parents.any(reserved) {
            return Err(Stop::Refused("a directory on its way is called like a whiteout".into()));
        }
        let Some(removed) = name.strip_prefix(PREFIX) else { return Ok(false) };
        match removed {
            b".wh..opq" => self.tree.white_out_inside(&path.parent())?,
            // Other names with the prefix twice were aufs's own files; no builder makes a whiteout of one.
            aufs if aufs.starts_with(PREFIX) => (),
            b"" | b"." | b".." => return Err(Stop::Refused("a whiteout of no name".into())),
            name => self.tree.white_out(&path.with_name(name))?,
        }
        Ok(true)
    }

    /// Appends a file's content to the output, or keeps it if it will lie beside its inode.
    fn content(
        &mut self,
        content: &Content,
        xattrs_size: usize,
        tar: &mut TarStream<Input<'_>>,
    ) -> Result<NodeKind, Stop> {
        let size = content.size();
        if is_short(size, xattrs_size) {
            let start = self.tails.position();
            let (write, skip) = (Tails::append, Tails::append_zeros);
            copy(content, tar, &mut self.tails, write, skip)?;
            return Ok(NodeKind::ShortFile(Tail { start, size }));
        }
        let start = self.data.position();
        copy(content, tar, &mut self.data, DataArea::write, DataArea::skip)?;
        self.data.align()?;
        Ok(NodeKind::File(Extent { start, size }))
    }

    fn give_back(&mut self) -> io::Result<()> {
        while let Some(extent) = self.tree.take_freed()? {
            self.data.punch(extent)?;
        }
        Ok(())
    }
}

/// Copies a file's content, holes and all.
fn copy<T>(
    content: &Content,
    tar: &mut TarStream<Input<'_>>,
    output: &mut T,
    write: impl Fn(&mut T, &[u8]) -> io::Result<()>,
    skip: impl Fn(&mut T, u64) -> io::Result<()>,
) -> Result<(), Stop> {
    let mut position = 0;
    for segment in content.segments() {
        skip(output, segment.offset - position)?;
        let mut left = segment.size;
        while left > 0 {
            let piece = tar.content(left).map_err(Stop::Unreadable)?;
            let count = piece.len();
            write(output, piece)?;
            tar.consume(count);
            left -= count as u64;
        }
        position = segment.offset + segment.size;
    }
    Ok(skip(output, content.size() - position)?)
}

/// Whether an entry shows in the image.
fn shows(rules: &Rules, path: &TreePath, is_directory: bool) -> bool {
    match rules {
        Rules::Oci => true,
        Rules::Aci(whitelist) if whitelist.shows_all() => true,
        Rules::Aci(whitelist) if is_directory => whitelist.shows_directory(path),
        Rules::Aci(whitelist) => whitelist.shows(path),
    }
}

/// Why a conversion ends early.
enum Stop {
    /// The entry is refused; the text says why.
    Refused(String),
    Unreadable(Error),
    Unwritable(io::Error),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Stop::Refused(text)
    }
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Refused(text) => Stop::Refused(text),
            Trouble::Disk(error) => Stop::Unwritable(error),
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Unwritable(error)
    }
}

fn link_target(target: &[u8], rules: &Rules) -> Result<TreePath, String> {
    let path = TreePath::parse(target)?;
    match rules {
        Rules::Oci => Ok(path),
        Rules::Aci(_) => path.below(b"rootfs").ok_or_else(|| "its target lies outside of `rootfs`".into()),
    }
}

/// Only `rootfs`, what is in it, and `manifest` may be in an ACI (appc spec, "Image Layout").
fn below_rootfs(path: &TreePath, kind: &EntryKind) -> Result<Option<TreePath>, Stop> {
    let is_top = path.parts().nth(1).is_none();
    match (path.parts().next(), kind) {
        // The archive's own top, as `tar -c .` lists it.
        (None, EntryKind::Directory) => Ok(None),
        (Some(b"manifest"), EntryKind::File(_)) if is_top => Ok(None),
        (Some(b"rootfs"), _) => Ok(path.below(b"rootfs")),
        _ => Err(Stop::Refused("only `manifest` and `rootfs` may be at the top of an ACI".into())),
    }
}
