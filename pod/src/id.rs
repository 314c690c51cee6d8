//! The names of pods and apps.

use std::fmt;
use std::fs;
use std::str::FromStr;

use hull_errors::Doing;
use serde::{Deserialize, Serialize};

use crate::{Error, Kind};

/// A version 4 UUID (RFC 9562 section 5.4) in its text form: what names a pod everywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodId(String);

impl PodId {
    /// Length of the text form, in bytes.
    pub const LEN: usize = 36;

    /// A new random id, from the kernel.
    ///
    /// # Errors
    /// A host without `/proc`.
    pub fn random() -> Result<Self, Error> {
        let path = "/proc/sys/kernel/random/uuid";
        let text = fs::read_to_string(path).doing(Kind::Host, || format!("read {path}"))?;
        text.trim().parse()
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The sixteen bytes that the text form shows (RFC 9562).
    pub fn bytes(&self) -> Vec<u8> {
        let digits: Vec<u8> = self.0.bytes().filter(|byte| *byte != b'-').collect();
        let value = |digit: u8| (digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let byte = |pair: &[u8]| Some(value(pair[0])? << 4 | value(pair[1])?);
        digits.chunks_exact(2).map(|pair| byte(pair).expect("the id was parsed")).collect()
    }

    /// The first eight characters, as lists show it.
    pub fn short(&self) -> &str {
        &self.0[..8]
    }
}

impl FromStr for PodId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = text.len() == Self::LEN
            && text.bytes().enumerate().all(|(index, byte)| match index {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase(),
            });
        match fits {
            true => Ok(Self(text.to_owned())),
            false => {
                Err(Error::new(Kind::BadName, format!("parse pod id {text:?}: not a UUID in lower case")))
            }
        }
    }
}

impl TryFrom<String> for PodId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<PodId> for String {
    fn from(id: PodId) -> String {
        id.0
    }
}

impl fmt::Display for PodId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An appc AC name: lower-case letters and digits, single dashes between them (appc `types/acname`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName(String);

impl AppName {
    /// Longest name, in bytes: it becomes a file name and a cgroup name.
    pub const LEN_MAX: usize = 128;

    /// The name that stands for an image called `name`: its last path part, everything that no AC name
    /// has replaced by a dash.
    pub fn from_image_name(name: &str) -> Self {
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let stem = last.split([':', '@']).next().unwrap_or_default();
        let lower = stem.to_ascii_lowercase();
        let words = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
        let mut text = words.collect::<Vec<_>>().join("-");
        text.truncate(Self::LEN_MAX);
        match text.trim_end_matches('-') {
            "" => Self("app".into()),
            text => Self(text.to_owned()),
        }
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let part = |word: &str| {
            !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        match text.len() <= Self::LEN_MAX && text.split('-').all(part) {
            true => Ok(Self(text.to_owned())),
            false => Err(Error::new(
                Kind::BadName,
                format!("parse app name {text:?}: only a-z, 0-9 and single dashes between them are allowed"),
            )),
        }
    }
}

impl TryFrom<String> for AppName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<AppName> for String {
    fn from(name: AppName) -> String {
        name.0
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_random_id_is_an_id() {
        let id = PodId::random().unwrap();
        assert_eq!(id.as_str().parse::<PodId>().unwrap(), id);
        assert_ne!(id, PodId::random().unwrap());
    }

    #[test]
    fn an_id_is_sixteen_bytes() {
        let id: PodId = "0af9c2d4-7e1b-4c3d-9a5e-0123456789ab".parse().unwrap();
        let want =
            [0x0a, 0xf9, 0xc2, 0xd4, 0x7e, 0x1b, 0x4c, 0x3d, 0x9a, 0x5e, 1, 0x23, 0x45, 0x67, 0x89, 0xab];
        assert_eq!(id.bytes(), want);
    }

    #[test]
    fn only_lower_case_uuids_are_ids() {
        for text in
            ["", "..", "0af9", "0AF9C2D4-7E1B-4C3D-9A5E-0123456789AB", "0af9c2d4/7e1b/4c3d/9a5e/0123456789ab"]
        {
            assert!(text.parse::<PodId>().is_err(), "{text}");
        }
    }

    #[test]
    fn app_names_follow_the_image() {
        let check = |image: &str, want: &str| assert_eq!(AppName::from_image_name(image).as_str(), want);
        check("redis", "redis");
        check("example.com/team/My_App:1.2", "my-app");
        check("/srv/images/debian.tar", "debian-tar");
        check("oci/", "oci");
        check("...", "app");
        check("", "app");
        for name in ["a", "a-b", "0"] {
            assert!(name.parse::<AppName>().is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "a--b", "A", "a/b", "..", "a.b"] {
            assert!(name.parse::<AppName>().is_err(), "{name}");
        }
    }
}
