//! Values that are read once, here, into what cannot be wrong.

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".into()),
    }
}

pub(super) fn absolute(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_owned()),
        false => Err("must be an absolute path".into()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
