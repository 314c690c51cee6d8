//! Text that strangers wrote, for a terminal.

/// At most `max` characters of `text`, in which nothing moves a cursor or turns text around.
pub(super) fn printable(text: &str, max: usize) -> String {
    let mut shown = String::new();
    for c in text.chars().take(max) {
        if c.is_control() || is_invisible(c) {
            shown.extend(c.escape_unicode());
        } else {
            shown.push(c);
        }
    }
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

/// Direction marks, joiners and the like (Unicode, "General Punctuation" and the byte order mark).
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}
