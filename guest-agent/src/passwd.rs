//! `/etc/passwd` and `/etc/group` (passwd(5), group(5)). They come from the image: bounded, and a line
//! that is no entry is skipped, as libc does.

/// Longest file that is read, in bytes.
pub(crate) const FILE_MAX: usize = 1 << 20;

/// An entry of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account<'a> {
    pub(crate) name: &'a str,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: &'a str,
}

/// An entry of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group<'a> {
    pub(crate) name: &'a str,
    pub(crate) gid: u32,
    members: &'a str,
}

impl Group<'_> {
    pub(crate) fn has_member(&self, name: &str) -> bool {
        self.members.split(',').any(|member| member.trim() == name)
    }
}

/// The entries of `/etc/passwd`, in order.
pub(crate) fn accounts(text: &str) -> impl Iterator<Item = Account<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let (uid, gid) = (id(fields.next()?)?, id(fields.next()?)?);
        let _gecos = fields.next()?;
        Some(Account { name, uid, gid, home: fields.next()? })
    })
}

/// The entries of `/etc/group`, in order.
pub(crate) fn groups(text: &str) -> impl Iterator<Item = Group<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let gid = id(fields.next()?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

/// A user or group id: digits only, below 2^32-1, which means "no id" to chown(2) and setresuid(2).
pub(crate) fn id(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| digits && *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn entries_are_read_and_everything_else_is_skipped() {
        let text = "root:x:0:0:root:/root:/bin/sh\n# no entry\n\nweb:x:33:34::/var/www:\n:x:1:1::/:\n\
                    big:x:4294967296:1::/:\nnone:x:4294967295:1::/:\nplus:x:+1:1::/:\nshort:x:1\n";
        let got: Vec<_> = accounts(text).collect();
        let want = [
            Account { name: "root", uid: 0, gid: 0, home: "/root" },
            Account { name: "web", uid: 33, gid: 34, home: "/var/www" },
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn members_are_whole_names() {
        let group = groups("tape:x:26:web,ftp, mail\n").next().unwrap();
        assert_eq!((group.name, group.gid), ("tape", 26));
        for (name, want) in [("web", true), ("mail", true), ("we", false), ("", false)] {
            assert_eq!(group.has_member(name), want, "{name:?}");
        }
        assert!(groups("empty:x:1").next().is_some_and(|group| !group.has_member("x")));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC*") {
            accounts(&text).for_each(|account| assert!(account.uid != u32::MAX));
            groups(&text).for_each(|group| assert!(group.gid != u32::MAX));
        }
    }
}
