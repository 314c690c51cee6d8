//! Who an app runs as.

use hull_agent_protocol::AppSpec;
use hull_agent_protocol::message::AgentFault;

use crate::Error;
use crate::passwd::{self, Account};

/// Most groups of a process (credentials(7), NGROUPS_MAX).
const GROUPS_MAX: usize = 65_536;

/// A user with its groups, as the image knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Every group, the primary included: without it a setgid program could shed a group that is denied
    /// something.
    pub(crate) groups: Vec<u32>,
    pub(crate) name: String,
    pub(crate) home: String,
}

impl Identity {
    /// Root, whatever the image says of it.
    pub(crate) fn root() -> Self {
        Self { uid: 0, gid: 0, groups: vec![0], name: "root".into(), home: "/root".into() }
    }
}

/// The image's files about users; empty where it has none.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) passwd: String,
    pub(crate) group: String,
}

/// User and group of a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Finds out who `app` asks to run as. `owner` says who owns a path of the app's root.
pub(crate) fn identify(
    app: &AppSpec,
    files: &Files,
    owner: impl Fn(&str) -> Result<Owner, Error>,
) -> Result<Identity, Error> {
    let (uid, account) = find_user(&app.user, files, &owner)?;
    let gid = match &app.group {
        Some(group) => find_group(group, files, &owner)?,
        None => account.as_ref().map_or(0, |account| account.gid),
    };
    let name = account.as_ref().map_or_else(|| name_of(uid), |account| account.name.to_owned());
    let home = account.as_ref().map_or(if uid == 0 { "/root" } else { "/" }, |account| account.home);
    let mut groups = vec![gid];
    groups.extend(&app.supplementary_gids);
    if account.is_some() {
        groups.extend(passwd::groups(&files.group).filter(|g| g.has_member(&name)).map(|g| g.gid));
    }
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > GROUPS_MAX {
        return refuse(format!(
            "user {name:?} is in {} groups, at most {GROUPS_MAX} are possible",
            groups.len()
        ));
    }
    Ok(Identity { uid, gid, groups, home: home.to_owned(), name })
}

fn find_user<'a>(
    user: &str,
    files: &'a Files,
    owner: impl Fn(&str) -> Result<Owner, Error>,
) -> Result<(u32, Option<Account<'a>>), Error> {
    let by_uid = |uid| (uid, passwd::accounts(&files.passwd).find(|account| account.uid == uid));
    if user.starts_with('/') {
        return owner(user).map(|owner| by_uid(owner.uid));
    }
    if is_number(user) {
        return match passwd::id(user) {
            Some(uid) => Ok(by_uid(uid)),
            None => refuse(format!("user id {user} is not below 4294967295")),
        };
    }
    if let Some(account) = passwd::accounts(&files.passwd).find(|account| account.name == user) {
        return Ok((account.uid, Some(account)));
    }
    // An image without the file still has a superuser.
    if user == "root" {
        return Ok((0, None));
    }
    refuse(format!("user {user:?} is not in the image's /etc/passwd; use a numeric id or --user"))
}

fn find_group(
    group: &str,
    files: &Files,
    owner: impl Fn(&str) -> Result<Owner, Error>,
) -> Result<u32, Error> {
    if group.starts_with('/') {
        return owner(group).map(|owner| owner.gid);
    }
    if is_number(group) {
        return match passwd::id(group) {
            Some(gid) => Ok(gid),
            None => refuse(format!("group id {group} is not below 4294967295")),
        };
    }
    if let Some(found) = passwd::groups(&files.group).find(|found| found.name == group) {
        return Ok(found.gid);
    }
    if group == "root" {
        return Ok(0);
    }
    refuse(format!("group {group:?} is not in the image's /etc/group; use a numeric id or --group"))
}

fn name_of(uid: u32) -> String {
    if uid == 0 { "root".into() } else { uid.to_string() }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn refuse<T>(why: String) -> Result<T, Error> {
    Err(Error::new(AgentFault::Pod, why))
}

#[cfg(test)]
mod tests {
    use hull_agent_protocol::{ImageSource, StandardStreams};

    use super::*;

    fn app(user: &str, group: Option<&str>) -> AppSpec {
        let image = ImageSource::Mounted { path: "/a".into() };
        let streams = StandardStreams::Pipes { stdin: None, stdout: 1, stderr: 2 };
        AppSpec {
            user: user.into(),
            group: group.map(Into::into),
            supplementary_gids: vec![77],
            ..AppSpec::new("a", image, &["/a"], streams)
        }
    }

    fn identify_as(user: &str, group: Option<&str>) -> Result<Identity, String> {
        let files = Files {
            passwd: "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/false\n".into(),
            group: "www:x:34:\ntape:x:26:web\nadm:x:4:ftp,web\n".into(),
        };
        let owner = |path: &str| match path {
            "/srv" => Ok(Owner { uid: 33, gid: 26 }),
            _ => refuse(format!("no {path}")),
        };
        identify(&app(user, group), &files, owner).map_err(|why| why.to_string())
    }

    #[test]
    fn every_way_to_name_a_user() {
        let web = Identity {
            uid: 33,
            gid: 34,
            groups: vec![4, 26, 34, 77],
            name: "web".into(),
            home: "/var/www".into(),
        };
        assert_eq!(identify_as("web", None), Ok(web.clone()));
        assert_eq!(identify_as("33", None), Ok(web.clone()));
        assert_eq!(identify_as("/srv", None), Ok(web.clone()));
        assert_eq!(
            identify_as("web", Some("tape")),
            Ok(Identity { gid: 26, groups: vec![4, 26, 77], ..web.clone() })
        );
        assert_eq!(
            identify_as("web", Some("/srv")),
            Ok(Identity { gid: 26, groups: vec![4, 26, 77], ..web.clone() })
        );
        let groups = vec![4, 26, 77, 500];
        assert_eq!(identify_as("web", Some("500")), Ok(Identity { gid: 500, groups, ..web }));
        let stranger =
            Identity { uid: 1000, gid: 0, groups: vec![0, 77], name: "1000".into(), home: "/".into() };
        assert_eq!(identify_as("1000", None), Ok(stranger));
    }

    #[test]
    fn an_image_without_passwd_has_root() {
        let got = identify(&app("root", Some("root")), &Files::default(), |path| refuse(path.into()));
        let got = got.unwrap();
        assert_eq!((got.uid, got.gid, got.home.as_str()), (0, 0, "/root"));
    }

    #[test]
    fn an_unknown_or_overflowing_user_never_becomes_root() {
        let check = |user, group, want: &str| {
            let why = identify_as(user, group).unwrap_err();
            assert!(why.contains(want), "{why}");
        };
        check("foo", None, "user \"foo\" is not in the image's /etc/passwd; use a numeric id or --user");
        check("4294967296", None, "user id 4294967296");
        check("4294967295", None, "user id 4294967295");
        check("-1", None, "user \"-1\"");
        check("", None, "user \"\"");
        check("web", Some("nope"), "group \"nope\" is not in the image's /etc/group");
        check("web", Some("99999999999999999999"), "group id");
        check("/nope", None, "no /nope");
    }
}
