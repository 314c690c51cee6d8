//! The keys that leave an app to itself, in podman's words: `ctrl-p,ctrl-q`.

use std::str::FromStr;

/// Most keys in a row.
const KEYS_MAX: usize = 16;

/// A sequence of keys, and how much of it was typed just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// There is no way to leave.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Gives what is meant for the app of what is typed; `None` once the whole sequence was.
    pub(crate) fn filter(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![];
        for byte in bytes {
            // What was held back was no beginning of the sequence after all; its end may be.
            while self.typed > 0 && self.keys[self.typed] != *byte {
                let held = &self.keys[..self.typed];
                let again = (0..held.len()).rev().find(|len| held.ends_with(&held[..*len])).unwrap_or(0);
                out.extend_from_slice(&held[..held.len() - again]);
                self.typed = again;
            }
            match self.keys.get(self.typed) == Some(byte) {
                true => self.typed += 1,
                false => out.push(*byte),
            }
            if self.typed == self.keys.len() && self.typed > 0 {
                return None;
            }
        }
        Some(out)
    }
}

impl FromStr for DetachKeys {
    type Err = String;

    /// Empty: there is no way to leave.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::none());
        }
        let keys: Vec<u8> = text.split(',').map(key).collect::<Result<_, _>>()?;
        if keys.len() > KEYS_MAX {
            return Err(format!("at most {KEYS_MAX} keys"));
        }
        Ok(Self { keys, typed: 0 })
    }
}

fn key(text: &str) -> Result<u8, String> {
    match (text.as_bytes(), text.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([key @ (b'!'..=b'~')], _) => Ok(*key),
        // The control characters of ASCII: @, the letters, and [ \\ ] ^ _.
        (_, Some([key @ (b'a'..=b'z')])) => Ok(key - b'a' + 1),
        (_, Some([key @ (b'@' | b'['..=b'_')])) => Ok(key - b'@'),
        _ => Err(format!("{text:?} is no key: a character, or ctrl- and a letter or one of @[\\]^_")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_podmans_names() {
        let keys = |text: &str| text.parse::<DetachKeys>().map(|keys| keys.keys);
        assert_eq!(keys("ctrl-p,ctrl-q"), Ok(vec![16, 17]));
        assert_eq!(keys("ctrl-@,ctrl-[,a,~"), Ok(vec![0, 27, b'a', b'~']));
        assert_eq!(keys(""), Ok(vec![]));
        for text in ["ctrl-", "ctrl-P", "ab", "a,,b", "\u{7f}", &["a"; 17].join(",")] {
            assert!(keys(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn only_the_whole_sequence_leaves_and_nothing_else_is_lost() {
        let mut keys: DetachKeys = "a,a,b".parse().unwrap();
        assert_eq!(keys.filter(b"xaay"), Some(b"xaay".to_vec()));
        assert_eq!(keys.filter(b"a"), Some(vec![]), "it may be the first of the sequence");
        assert_eq!(keys.filter(b"aa"), Some(b"a".to_vec()), "three in a row: the first was none");
        assert_eq!(keys.filter(b"b"), None);
        assert_eq!(DetachKeys::none().filter(b"\x10\x11"), Some(b"\x10\x11".to_vec()));
    }
}
