//! The kernel's table of mounts, `/proc/self/mountinfo` (proc(5)).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// File systems that are the kernel itself, not files: through them the host is changed, looked into or left.
const KERNELS_OWN: [&str; 18] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "fusectl",
    "nfsd",
    "nsfs",
    "proc",
    "pstore",
    "resctrl",
    "securityfs",
    "sysfs",
    "tracefs",
];

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, as seen from the reader's root.
    pub target: PathBuf,
    /// The kind of file system: `ext4`.
    pub kind: String,
}

/// The mounts at and below `top`, by the text of the table.
pub fn below(table: &str, top: &Path) -> Vec<Entry> {
    table.lines().filter_map(entry).filter(|entry| entry.target.starts_with(top)).collect()
}

/// The first of the mounts at and below `top` that no pod may have.
pub fn kernels_own(table: &str, top: &Path) -> Option<Entry> {
    below(table, top).into_iter().find(|mount| KERNELS_OWN.contains(&mount.kind.as_str()))
}

impl Entry {
    /// Why it is none for a pod, whose tree begins at `top`, and what to do about it.
    pub fn objection(&self, top: &Path) -> String {
        let way_out = match self.target == top {
            true => "a pod has a /proc and a /sys of its own",
            false => "recursive=false leaves out what is mounted below",
        };
        let below = self.target.strip_prefix(top).unwrap_or(Path::new(""));
        let place = if below == Path::new("") { "it".into() } else { format!("{} in it", below.display()) };
        format!(
            "{place} is the host kernel's own {}, and a pod with that could change the host; {way_out}",
            self.kind
        )
    }
}

fn entry(line: &str) -> Option<Entry> {
    let (mount, file_system) = line.split_once(" - ")?;
    let kind = file_system.split(' ').next()?.to_owned();
    Some(Entry { target: unescape(mount.split(' ').nth(4)?), kind })
}

/// Blanks are written as `\040` and the like.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let number = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let number = number.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(number.unwrap_or(*first));
        rest = if number.is_some() { &after[3..] } else { after };
    }
    PathBuf::from(OsStr::from_bytes(&bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "31 23 0:28 / /srv rw,relatime - tmpfs tmpfs rw,mode=755\n\
                         32 31 0:29 / /srv/a\\040b rw shared:4 - proc proc rw\n\
                         33 31 0:30 / /srv-not rw - sysfs sysfs rw\nno line\n";

    #[test]
    fn what_lies_below_is_found() {
        let found: Vec<_> = below(TABLE, Path::new("/srv")).into_iter().map(|e| (e.target, e.kind)).collect();
        assert_eq!(found, [("/srv".into(), "tmpfs".into()), ("/srv/a b".into(), "proc".into())]);
        assert!(below(TABLE, Path::new("/other")).is_empty());
    }

    #[test]
    fn what_is_the_kernels_own_is_told() {
        let bad = kernels_own(TABLE, Path::new("/srv")).unwrap();
        let text = bad.objection(Path::new("/srv"));
        assert!(
            text.contains("a b in it") && text.contains("proc") && text.contains("recursive=false"),
            "{text}"
        );
        let text = bad.objection(Path::new("/srv/a b"));
        assert!(text.starts_with("it is") && text.contains("/sys of its own"), "{text}");
        assert_eq!(kernels_own(TABLE, Path::new("/other")), None);
    }

    #[test]
    fn a_backslash_need_not_escape_anything() {
        for (text, want) in [("a\\040b", "a b"), ("a\\", "a\\"), ("\\04", "\\04"), ("\\999", "\\999")] {
            assert_eq!(unescape(text), PathBuf::from(want), "{text}");
        }
    }
}
