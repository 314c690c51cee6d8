//! An archive as a box of named files: where each member lies.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use hull_converter_protocol::{Answer, MEMBERS_MAX, Member, Place, Request, Window, cut, shown};
use hull_errors::Doing;

use crate::converter::Converter;
use crate::{Error, Kind};

/// Most links that are followed to a member.
const HOPS_MAX: usize = 8;

/// An uncompressed tar archive whose headers were read.
pub(crate) struct Archive {
    file: File,
    name: String,
    members: BTreeMap<String, Place>,
}

impl Archive {
    /// Has the headers read. `name` is for errors.
    pub(crate) fn open_file(converter: &Converter, file: File, name: &str) -> Result<Self, Error> {
        let doing = || format!("read {name}");
        let request = Request::List { name: name.to_owned() };
        let Answer::Listed(listed) = converter.ask(&request, &[file.as_fd()], doing)? else {
            return Err(converter.senseless(&doing()));
        };
        let length = file.metadata().doing(Kind::Host, || format!("look at {name}"))?.len();
        let members = members(listed, length).ok_or_else(|| converter.senseless(&doing()))?;
        Ok(Self { file, name: name.to_owned(), members })
    }

    /// The content and size of a member, if there is one of that name.
    pub(crate) fn open(&self, path: &str) -> Result<Option<(Window<'_>, u64)>, Error> {
        let found = self.find(path)?;
        Ok(found.map(|(start, size)| (Window::new(&self.file, start, start + size), size)))
    }

    /// A member, uncompressed if it is compressed.
    pub(crate) fn open_uncompressed(
        &self,
        converter: &Converter,
        path: &str,
    ) -> Result<Option<impl Read + use<>>, Error> {
        let Some((start, size)) = self.find(path)? else { return Ok(None) };
        let name = format!("`{}` of {self}", cut(path));
        converter.uncompress(&self.file, (start, start + size), &name).map(Some)
    }

    /// A whole member, for one that is known to be short.
    pub(crate) fn document(&self, path: &str, max: u64) -> Result<Option<Vec<u8>>, Error> {
        let Some((mut window, size)) = self.open(path)? else { return Ok(None) };
        if size > max {
            let text = format!("read `{path}` of {self}: {size} bytes, at most {max} are accepted");
            return Err(Error::new(Kind::TooLarge, text));
        }
        let mut bytes = Vec::new();
        window.read_to_end(&mut bytes).doing(Kind::Host, || format!("read `{path}` of {self}"))?;
        Ok(Some(bytes))
    }

    /// Whether there is a member of that name, or one inside a folder of that name.
    pub(crate) fn contains(&self, path: &str) -> bool {
        let inside = |member: &String| member.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'));
        self.members.contains_key(path) || self.members.keys().any(inside)
    }

    /// Where a member's content begins, and its size.
    fn find(&self, path: &str) -> Result<Option<(u64, u64)>, Error> {
        let mut path = self.normal(path)?;
        for _ in 0..HOPS_MAX {
            match self.members.get(&path) {
                None => return Ok(None),
                Some(Place::Link(target)) => path.clone_from(target),
                Some(Place::File { start, size }) => return Ok(Some((*start, *size))),
            }
        }
        Err(self.wrong(&path, &format!("is a link over more than {HOPS_MAX} others")))
    }

    /// As members are called.
    fn normal(&self, path: &str) -> Result<String, Error> {
        let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err(self.wrong(path, "is refused: it leads up by `..`"));
        }
        Ok(shown(parts.join("/").as_bytes()))
    }

    fn wrong(&self, path: &str, text: &str) -> Error {
        Error::new(Kind::Corrupt, format!("read {}: member `{}` {text}", self.name, cut(path)))
    }
}

/// What was listed of an archive of that length, if it makes sense.
fn members(listed: Vec<Member>, length: u64) -> Option<BTreeMap<String, Place>> {
    let inside = |place: &Place| match place {
        Place::File { start, size } => start.checked_add(*size).is_some_and(|end| end <= length),
        Place::Link(_) => true,
    };
    let count = listed.len();
    if count > MEMBERS_MAX || !listed.iter().all(|member| inside(&member.place)) {
        return None;
    }
    let members: BTreeMap<_, _> = listed.into_iter().map(|member| (member.path, member.place)).collect();
    (members.len() == count).then_some(members)
}

/// A way in for the fuzzer: what a converter answers that was taken over.
pub(crate) fn fuzz(bytes: &[u8], file: &File) {
    const LENGTH: u64 = 100;
    match serde_json::from_slice(bytes) {
        Ok(Answer::Listed(listed)) => {
            let paths: Vec<String> = listed.iter().map(|member| member.path.clone()).collect();
            let Some(members) = members(listed, LENGTH) else { return };
            let file = file.try_clone().expect("a file has two descriptors");
            let archive = Archive { file, name: String::new(), members };
            for path in paths {
                if let Ok(Some((start, size))) = archive.find(&path) {
                    assert!(start + size <= LENGTH, "a member lies in its archive");
                }
            }
        }
        Ok(Answer::Failed { text, .. }) => {
            assert!(!cut(&text).contains(char::is_control), "nothing for a terminal");
        }
        _ => (),
    }
}

impl fmt::Display for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
