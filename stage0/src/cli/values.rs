//! Values that are read once, here, into what cannot be wrong.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use hull_pod::manifest::Isolator;
use serde_json::json;

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".into()),
    }
}

/// Checked here, kept as it is for the manifest.
/// As limits of memory are written.
pub(super) fn size(text: &str) -> Result<String, String> {
    match hull_pod::wire::parse_size(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("must be a number of bytes above 0, such as 64Mi".into()),
    }
}

pub(super) fn restart(text: &str) -> Result<String, String> {
    match hull_pod::wire::parse_restart(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("must be never, on-failure, on-failure:MAX or always".into()),
    }
}

/// Likewise, the connection of a standard stream.
pub(super) fn stream<T: FromStr<Err = hull_pod::Error>>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|_| text.to_owned()).map_err(|why| hull_errors::chain(&why))
}

pub(super) fn absolute(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("must be an absolute path".into()),
    }
}

/// How long to wait for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    Not,
    Forever,
    For(Duration),
}

/// rkt's words: `true`, `false`, or a duration; a negative one has no end, and 0 is no wait.
pub(super) fn wait(text: &str) -> Result<Wait, String> {
    match text {
        "true" => return Ok(Wait::Forever),
        "false" => return Ok(Wait::Not),
        _ => (),
    }
    let (end, number) = text.strip_prefix('-').map_or((true, text), |rest| (false, rest));
    let duration =
        humantime::parse_duration(number).map_err(|_| "must be true, false or a duration like 10s")?;
    Ok(match duration {
        Duration::ZERO => Wait::Not,
        _ if !end => Wait::Forever,
        _ => Wait::For(duration),
    })
}

/// rkt's words for a filter, as the isolator that they are.
pub(super) fn seccomp(text: &str) -> Result<Isolator, String> {
    let (mut mode, mut errno, mut set) = (None, None, vec![]);
    for word in text.split(',') {
        match word.split_once('=') {
            Some(("mode", "retain" | "remove")) if mode.is_none() => mode = word.strip_prefix("mode="),
            Some(("errno", name)) if errno.is_none() && !name.is_empty() => errno = Some(name),
            None if !word.is_empty() => set.push(word),
            _ => {
                return Err(format!(
                    "{word:?} is no mode=retain or mode=remove, no errno=NAME (once each) and no call"
                ));
            }
        }
    }
    let mode = mode.ok_or("mode=retain or mode=remove is missing")?;
    let mut value = json!({ "set": set });
    if let Some(errno) = errno {
        value["errno"] = errno.into();
    }
    Ok(Isolator { name: format!("os/linux/seccomp-{mode}-set"), value })
}

/// As hostname(7): labels of letters, digits and dashes, and at most 64 bytes in all, the kernel's limit.
pub(super) fn hostname(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        let inner = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    match text.len() <= 64 && text.split('.').all(label) {
        true => Ok(text.to_owned()),
        false => Err("must be letters, digits, dashes and dots, at most 64 of them".into()),
    }
}

/// A time, or how long ago it was.
pub(super) fn since(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = humantime::parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = humantime::parse_duration(text);
    let ago = ago.map_err(|_| "must be a time like 2026-01-31T12:00:00Z, or a duration like 10m")?;
    let epoch = SystemTime::UNIX_EPOCH;
    Ok(SystemTime::now().checked_sub(ago).map_or(epoch, |time| time.max(epoch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_distances() {
        let epoch = SystemTime::UNIX_EPOCH;
        let second = Duration::from_secs(1);
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(epoch + second));
        assert_eq!(since("1970-01-01 00:00:01"), Ok(epoch + second));
        assert_eq!(since("9999years"), Ok(epoch), "before there was time");
        let before = SystemTime::now();
        let hour_ago = since("1h").unwrap();
        assert!(hour_ago < before && hour_ago + 3600 * second >= before);
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn waits_have_an_end_or_none() {
        let check = |text: &str, want: Wait| assert_eq!(wait(text), Ok(want), "{text}");
        check("true", Wait::Forever);
        check("false", Wait::Not);
        check("0s", Wait::Not);
        check("-1s", Wait::Forever);
        check("1m", Wait::For(Duration::from_secs(60)));
        assert!(wait("long").is_err());
    }

    #[test]
    fn filters_are_isolators() {
        let isolator = seccomp("mode=remove,errno=ENOSPC,mkdir,@docker/default-blacklist").unwrap();
        assert_eq!(isolator.name, "os/linux/seccomp-remove-set");
        assert_eq!(
            isolator.value,
            json!({ "set": ["mkdir", "@docker/default-blacklist"], "errno": "ENOSPC" })
        );
        assert_eq!(seccomp("mode=retain,read").unwrap().value, json!({ "set": ["read"] }));
        for wrong in
            ["", "read", "mode=keep,read", "mode=retain,mode=remove", "mode=retain,,", "mode=retain,errno="]
        {
            assert!(seccomp(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn host_names_are_host_names() {
        for name in ["a", "web-1.example", "0"] {
            assert!(hostname(name).is_ok(), "{name}");
        }
        for name in ["", "-a", "a-", "a..b", "a b", &"x".repeat(65)] {
            assert!(hostname(name).is_err(), "{name}");
        }
    }
}
