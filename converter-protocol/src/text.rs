//! Bytes and texts of strangers, made fit for a person's terminal.

/// Longest name printed in an error, in characters.
const SHOWN_MAX: usize = 300;

/// Longest text that is taken over from an answer, in characters.
const TEXT_MAX: usize = 4000;

/// Bytes of a name as a person can read them, safe for a terminal.
pub fn shown(name: &[u8]) -> String {
    let text = name.escape_ascii().to_string();
    if text.len() <= SHOWN_MAX { text } else { format!("{}…", &text[..SHOWN_MAX]) }
}

/// A text that another process wrote: not too long, and nothing in it that a terminal acts upon.
pub fn cut(text: &str) -> String {
    let plain = |c: char| if c.is_control() { c.escape_debug().to_string() } else { c.to_string() };
    let mut kept: String = text.chars().take(TEXT_MAX).map(plain).collect();
    if text.chars().nth(TEXT_MAX).is_some() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_acts_upon_gets_through() {
        assert_eq!(shown(b"a\x1b[2J\xff"), "a\\x1b[2J\\xff");
        assert_eq!(shown(&[b'n'; 400]).chars().count(), SHOWN_MAX + 1);
        assert_eq!(cut("read `é`\u{1b}[2J\n"), "read `é`\\u{1b}[2J\\n");
        assert_eq!(cut(&"n".repeat(5000)).chars().count(), TEXT_MAX + 1);
    }
}
