//! rkt's words for volumes and mounts: commas between, `KEY=VALUE` each.

use hull_pod::manifest::{Mount, Volume, VolumeKind};

/// The values of a list of words, each key at most once.
struct Words<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Words<'a> {
    fn read(words: impl Iterator<Item = &'a str>, known: &[&str]) -> Result<Self, String> {
        let mut read: Vec<(&str, &str)> = vec![];
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            if !known.contains(&key) {
                return Err(format!("{word:?} is none of {}", known.join("=, ") + "="));
            }
            if read.iter().any(|(other, _)| *other == key) {
                return Err(format!("{key} is said twice"));
            }
            read.push((key, value));
        }
        Ok(Self(read))
    }

    fn take(&mut self, key: &str) -> Option<&'a str> {
        let place = self.0.iter().position(|(other, _)| *other == key)?;
        Some(self.0.remove(place).1)
    }

    fn take_bool(&mut self, key: &str) -> Result<Option<bool>, String> {
        let value = self.take(key).map(|text| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("{key} is true or false, not {text:?}")),
        });
        value.transpose()
    }

    fn take_id(&mut self, key: &str) -> Result<Option<u32>, String> {
        let read = |text: &str| text.parse().map_err(|_| format!("{key} is a number, not {text:?}"));
        self.take(key).map(read).transpose()
    }

    /// What is left means nothing to this kind.
    fn end(self, kind: &str) -> Result<(), String> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(format!("{key} means nothing to kind={kind}")),
        }
    }
}

const KEYS: [&str; 8] = ["kind", "source", "readOnly", "recursive", "mode", "uid", "gid", "size"];

/// `NAME,kind=host,source=PATH…` or `NAME,kind=empty…`.
pub(super) fn volume(text: &str) -> Result<Volume, String> {
    let mut words = text.split(',');
    let first = words.next().unwrap_or_default();
    let name = first.strip_prefix("name=").unwrap_or(first);
    if name.is_empty() || name.contains('=') {
        return Err("it begins with the volume's name: NAME,kind=host,source=PATH or NAME,kind=empty".into());
    }
    let mut words = Words::read(words, &KEYS)?;
    let read_only = words.take_bool("readOnly")?;
    let kind = words.take("kind").ok_or("kind=host or kind=empty is missing")?;
    let volume = match kind {
        "host" => VolumeKind::Host {
            source: words.take("source").ok_or("source=PATH is missing")?.to_owned(),
            recursive: words.take_bool("recursive")?,
        },
        "empty" => VolumeKind::Empty {
            mode: words.take("mode").map(str::to_owned),
            uid: words.take_id("uid")?,
            gid: words.take_id("gid")?,
            size: words.take("size").map(str::to_owned),
        },
        other => return Err(format!("kind is host or empty, not {other:?}")),
    };
    words.end(kind)?;
    Ok(Volume { name: name.to_owned(), kind: volume, read_only })
}

/// `volume=NAME,target=PATH`.
pub(super) fn mount(text: &str) -> Result<Mount, String> {
    let mut words = Words::read(text.split(','), &["volume", "target"])?;
    let mut take = |key: &str| {
        let value = words.take(key).filter(|value| !value.is_empty()).map(str::to_owned);
        value.ok_or_else(|| format!("{key}= is missing: volume=NAME,target=PATH"))
    };
    Ok(Mount { volume: take("volume")?, path: take("target")?, app_volume: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[track_caller]
    fn check(text: &str, want: &Value) {
        assert_eq!(serde_json::to_value(volume(text).unwrap()).unwrap(), *want, "{text}");
    }

    #[test]
    fn volumes_are_rkts() {
        check("v,kind=host,source=/s", &json!({ "name": "v", "kind": "host", "source": "/s" }));
        check(
            "name=v,recursive=false,kind=host,readOnly=true,source=/s",
            &json!({ "name": "v", "kind": "host", "source": "/s", "readOnly": true, "recursive": false }),
        );
        check(
            "v,kind=empty,mode=0700,uid=7,gid=8,size=1Mi",
            &json!({ "name": "v", "kind": "empty", "mode": "0700", "uid": 7, "gid": 8, "size": "1Mi" }),
        );
    }

    #[test]
    fn what_is_no_volume_is_told_apart() {
        let check = |text: &str, word: &str| {
            let why = volume(text).unwrap_err();
            assert!(why.contains(word), "{text}: {why}");
        };
        check("", "NAME");
        check("kind=host", "NAME");
        check("v", "kind=host");
        check("v,kind=nfs", "nfs");
        check("v,kind=host", "source");
        check("v,kind=host,source=/s,readonly=true", "readonly");
        check("v,kind=host,source=/s,readOnly=yes", "readOnly");
        check("v,kind=host,source=/s,source=/t", "twice");
        check("v,kind=host,source=/s,uid=7", "uid means nothing");
        check("v,kind=empty,source=/s", "source means nothing");
        check("v,kind=empty,uid=me", "uid");
    }

    #[test]
    fn mounts_have_a_volume_and_a_target() {
        let found = mount("target=/t,volume=v").unwrap();
        assert_eq!((found.volume.as_str(), found.path.as_str()), ("v", "/t"));
        for wrong in ["", "v", "volume=v", "volume=,target=/t", "volume=v,target=/t,ro"] {
            assert!(mount(wrong).is_err(), "{wrong}");
        }
    }
}
