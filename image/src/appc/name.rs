//! Names of App Container Images as rkt writes them: `name[:version][,label=value…]`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Kind};

/// Longest name, label's name or label's value, in bytes. Names become parts of URLs and of file names.
const PART_MAX: usize = 255;

/// Most labels of one image.
const LABELS_MAX: usize = 64;

/// An AC identifier (appc spec, "AC Identifier Type"): what names of images and of labels are made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Identifier(String);

impl Identifier {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Identifier {
    type Err = String;

    /// The specification asks for single separators inside; its own code, and so every tool, takes several.
    fn from_str(text: &str) -> Result<Self, String> {
        let inner = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
        let shown = || crate::error::shown(text.as_bytes());
        if text.is_empty() {
            return Err("it is empty".into());
        }
        if text.len() > PART_MAX {
            return Err(format!("it has {} characters, at most {PART_MAX} are accepted", text.len()));
        }
        if !text.bytes().all(|b| inner(b) || b"-._~/".contains(&b)) {
            return Err(format!(
                "`{}` must contain only lower case alphanumeric characters plus `-._~/`",
                shown()
            ));
        }
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric())
            || !text.ends_with(|c: char| c.is_ascii_alphanumeric())
        {
            return Err(format!(
                "`{}` must start and end with only lower case alphanumeric characters",
                shown()
            ));
        }
        // They become the path of a URL, where such parts mean something else.
        if text.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(format!("`{}` has an empty part, `.` or `..` between its slashes", shown()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for Identifier {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Identifier> for String {
    fn from(identifier: Identifier) -> String {
        identifier.0
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Labels of an image: no `name` among them, `os` and `arch` a pair that the specification knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Labels(BTreeMap<Identifier, String>);

/// What a program may run on (appc spec, "Image Manifest Schema", labels).
const KNOWN: [(&str, &[&str]); 3] = [
    ("darwin", &["x86_64", "i386"]),
    ("freebsd", &["amd64", "i386", "arm"]),
    (
        "linux",
        &[
            "amd64",
            "i386",
            "aarch64",
            "aarch64_be",
            "armv6l",
            "armv7l",
            "armv7b",
            "ppc64",
            "ppc64le",
            "s390x",
        ],
    ),
];

/// The host's architecture in the words of the specification.
pub(crate) const HOST_ARCH: &str = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => "amd64",
    b"x86" => "i386",
    b"powerpc64" => "ppc64",
    _ => std::env::consts::ARCH,
};

impl Labels {
    /// # Errors
    /// A text that says what is wrong, in the specification's words.
    pub(crate) fn new(labels: impl IntoIterator<Item = (String, String)>) -> Result<Self, String> {
        let mut map = BTreeMap::new();
        for (name, value) in labels {
            let shown = crate::error::shown(name.as_bytes());
            if name == "name" {
                return Err("invalid label name: \"name\"".into());
            }
            if value.len() > PART_MAX || value.chars().any(char::is_control) {
                return Err(format!("the value of label `{shown}` is too long or has control characters"));
            }
            let name: Identifier = name.parse().map_err(|e| format!("invalid label name: {e}"))?;
            if map.insert(name, value).is_some() {
                return Err(format!("duplicate labels of name \"{shown}\""));
            }
            if map.len() > LABELS_MAX {
                return Err(format!("more than {LABELS_MAX} labels"));
            }
        }
        let labels = Self(map);
        labels.check_platform(&KNOWN)?;
        Ok(labels)
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Refuses what this host does not run. Without `os` no `arch` is looked at, as everywhere in appc.
    pub(crate) fn check_host(&self) -> Result<(), String> {
        self.check_platform(&[(crate::config::HOST_OS, &[HOST_ARCH])])
    }

    /// The words are those of the specification's own code, which scripts look for.
    fn check_platform(&self, known: &[(&str, &[&str])]) -> Result<(), String> {
        let Some(os) = self.get("os") else { return Ok(()) };
        let Some((_, archs)) = known.iter().find(|(name, _)| *name == os) else {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            return Err(format!("bad os {os:?} (must be one of: [{}])", names.join(" ")));
        };
        match self.get("arch") {
            Some(arch) if !archs.contains(&arch) => {
                Err(format!("bad arch {arch:?} for {os} (must be one of: [{}])", archs.join(" ")))
            }
            _ => Ok(()),
        }
    }

    /// These, and where they say nothing those of `weaker`.
    pub(crate) fn over(&self, weaker: &Labels) -> Labels {
        let mut labels = weaker.0.clone();
        labels.extend(self.0.clone());
        Labels(labels)
    }

    /// The labels of this host.
    fn host() -> Labels {
        let host = [("os", crate::config::HOST_OS), ("arch", HOST_ARCH)];
        let identifier = |name: &str| name.parse().expect("`os` and `arch` are identifiers");
        Labels(host.into_iter().map(|(name, value)| (identifier(name), value.to_owned())).collect())
    }
}

/// The name of an App Container Image and the labels it must have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    name: Identifier,
    labels: Labels,
}

impl Name {
    /// Reads `name[:version][,label=value…]`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for what no image can be called, [`Kind::WrongPlatform`] for an `os` and `arch` that
    /// this host does not run.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refused = |why: String| {
            let shown = crate::error::shown(text.as_bytes());
            Error::new(Kind::NotFound, format!("read image name `{shown}`: {why}"))
        };
        let (head, labels) = text.split_once(',').map_or((text, None), |(head, rest)| (head, Some(rest)));
        if labels.is_some_and(|rest| rest.contains(':')) {
            return Err(refused("a colon may appear only right after the name".into()));
        }
        let (name, version) =
            head.split_once(':').map_or((head, None), |(name, version)| (name, Some(version)));
        if version.is_some_and(|version| version.contains(':')) {
            return Err(refused("a colon may appear at most once".into()));
        }
        if version == Some("") {
            return Err(refused("the version after the colon is empty".into()));
        }
        let mut pairs: Vec<(String, String)> =
            version.map(|version| ("version".to_owned(), version.to_owned())).into_iter().collect();
        for label in labels.into_iter().flat_map(|labels| labels.split(',')) {
            let Some((name, value)) = label.split_once('=') else {
                return Err(refused(format!(
                    "`{}` is a label without a value, write `label=value`",
                    crate::error::shown(label.as_bytes())
                )));
            };
            pairs.push((name.to_owned(), value.to_owned()));
        }
        let name = name.parse().map_err(refused)?;
        let labels = Labels::new(pairs).map_err(refused)?;
        Self::new(name, labels)
    }

    /// A name from its parts.
    ///
    /// # Errors
    /// [`Kind::WrongPlatform`] for an `os` and `arch` that this host does not run.
    pub(crate) fn new(name: Identifier, labels: Labels) -> Result<Self, Error> {
        let name = Self { name, labels };
        // Without a word on the system it is the host's, and so the architecture must be one of its own.
        name.labels.over(&Labels::host()).check_host().map_err(|why| {
            Error::new(Kind::WrongPlatform, format!("read image name `{}`: {why}", name.shown()))
        })?;
        Ok(name)
    }

    /// The name alone: `coreos.com/etcd`.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// What the user said of the version.
    pub fn version(&self) -> Option<&str> {
        self.labels.get("version")
    }

    /// The labels that were asked for, in the order of their names; among them `version`.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter()
    }

    /// The labels that an image must have to be meant: those asked for, and `os` and `arch` of this host.
    pub fn wanted(&self) -> Vec<(String, String)> {
        let wanted = self.labels.over(&Labels::host());
        wanted.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn shown(&self) -> String {
        crate::error::shown(self.to_string().as_bytes())
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)?;
        if let Some(version) = self.version() {
            write!(f, ":{version}")?;
        }
        let others = self.labels().filter(|(name, _)| *name != "version");
        others.into_iter().try_for_each(|(name, value)| write!(f, ",{name}={value}"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, prop_assume, proptest};

    use super::*;

    #[track_caller]
    fn check(text: &str, name: &str, labels: &[(&str, &str)]) {
        let got = Name::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((got.name(), &*got.labels().collect::<Vec<_>>()), (name, labels));
    }

    #[track_caller]
    fn refuse(text: &str, kind: Kind, want: &str) {
        let error = Name::parse(text).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
        assert_eq!(*error.kind(), kind, "{error}");
    }

    #[test]
    fn names_are_read_as_rkt_writes_them() {
        check("example.com/reduce-worker", "example.com/reduce-worker", &[]);
        check("example.com/reduce-worker:1.0.0", "example.com/reduce-worker", &[("version", "1.0.0")]);
        check(
            "example.com/a:1,channel=alpha,label=v=w",
            "example.com/a",
            &[("channel", "alpha"), ("label", "v=w"), ("version", "1")],
        );
        check("example.com/a,version=1", "example.com/a", &[("version", "1")]);
        check("a--b,os=linux", "a--b", &[("os", "linux")]);
        check("x,empty=", "x", &[("empty", "")]);
    }

    #[test]
    fn what_is_no_name_is_refused_with_the_reason() {
        refuse("", Kind::NotFound, "empty");
        refuse("Example.com/a", Kind::NotFound, "only lower case alphanumeric");
        refuse("-a", Kind::NotFound, "must start and end");
        refuse("a/", Kind::NotFound, "must start and end");
        refuse("a//b", Kind::NotFound, "between its slashes");
        refuse("a/../b", Kind::NotFound, "between its slashes");
        refuse("a:", Kind::NotFound, "empty");
        refuse("a:1:2", Kind::NotFound, "at most once");
        refuse("a,b=c:1", Kind::NotFound, "only right after the name");
        refuse("a,b", Kind::NotFound, "a label without a value");
        refuse("a,b=c,b=d", Kind::NotFound, "duplicate labels");
        refuse("a:1,version=2", Kind::NotFound, "duplicate labels of name \"version\"");
        refuse("a,name=b", Kind::NotFound, "invalid label name: \"name\"");
        refuse("a,B=c", Kind::NotFound, "invalid label name");
        refuse(&format!("a,{}", "b".repeat(300)), Kind::NotFound, "without a value");
        refuse(&"a".repeat(256), Kind::NotFound, "at most 255");
    }

    #[test]
    fn another_platform_is_refused_in_rkts_words() {
        refuse("a,os=freebsd", Kind::WrongPlatform, "bad os \"freebsd\" (must be one of: [linux])");
        refuse("a,os=beos", Kind::NotFound, "bad os \"beos\" (must be one of: [darwin freebsd linux])");
        refuse(
            "a,os=linux,arch=x86_64",
            Kind::NotFound,
            "bad arch \"x86_64\" for linux (must be one of: [amd64 ",
        );
        refuse("a,arch=s390x", Kind::WrongPlatform, "bad arch \"s390x\" for linux (must be one of: [");
    }

    #[test]
    fn the_host_is_the_default() {
        let name = Name::parse("a:1,channel=beta").unwrap();
        let wanted = name.wanted();
        let wanted: Vec<_> = wanted.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(wanted, [("arch", HOST_ARCH), ("channel", "beta"), ("os", "linux"), ("version", "1")]);
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_that_prints_as_itself_or_an_error(text in any::<String>()) {
            if let Ok(name) = Name::parse(&text) {
                prop_assert_eq!(Name::parse(&name.to_string()).unwrap(), name);
            }
        }

        #[test]
        fn names_survive_a_round_trip(
            name in "[a-z0-9]{1,8}([-._~/]{1,2}[a-z0-9]{1,8}){0,3}",
            version in proptest::option::of("[^:,\\p{C}]{1,12}"),
            labels in proptest::collection::btree_map("[a-z]{4,6}", "[^:,\\p{C}]{0,12}", 0..4),
        ) {
            prop_assume!(!labels.contains_key("name") && !labels.contains_key("arch"));
            let version = version.map_or(String::new(), |v| format!(":{v}"));
            let labels: String = labels.iter().map(|(n, v)| format!(",{n}={v}")).collect();
            let text = format!("{name}{version}{labels}");
            if let Ok(parsed) = Name::parse(&text) {
                prop_assert_eq!(parsed.to_string(), text);
            } else {
                prop_assert!(name.contains("//") || name.split('/').any(|part| part.is_empty() || matches!(part, "." | "..")));
            }
        }
    }
}
