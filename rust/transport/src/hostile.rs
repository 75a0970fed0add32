//! Caps on what a server says, before it reaches a log line, a terminal or a decision.
//!
//! The server may be broken, replaced or malicious, and its words end up in training logs. So text is cut and stripped of
//! control characters, a page is a path and nothing else, and an identifier has a length.

/// Longest text kept of a reason or notice.
const TEXT_CHARS: usize = 500;
/// Longest page path kept.
const PAGE_BYTES: usize = 2_048;
/// Longest storage epoch kept.
pub(crate) const EPOCH_BYTES: usize = 64;
/// Longest host name there is (RFC 1035), brackets of an IPv6 address included.
const HOST_BYTES: usize = 255;

/// The text on one line, without control characters, cut to a length a log line can take.
pub(crate) fn text(said: &str) -> String {
    let mut kept: String = said
        .chars()
        .take(TEXT_CHARS)
        .map(|char| if char.is_control() || is_bidi_control(char) { ' ' } else { char })
        .collect();
    if said.chars().nth(TEXT_CHARS).is_some() {
        kept.push('…');
    }
    kept
}

/// A page of the server as a path, or nothing: an absolute address could lead the user anywhere.
pub(crate) fn page(said: &str) -> Option<String> {
    let is_path = said.starts_with('/') && !said.starts_with("//");
    let is_plain = said.len() <= PAGE_BYTES && said.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (is_path && is_plain).then(|| said.to_owned())
}

/// A host name or address that can stand in a URL, or nothing. IPv6 addresses come and go in brackets.
pub(crate) fn host(said: &str) -> Option<&str> {
    let name = said.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let is_good = match name {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !said.is_empty() && said.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    (is_good && said.len() <= HOST_BYTES).then_some(said)
}

/// Characters that change the direction of the text around them.
fn is_bidi_control(char: char) -> bool {
    matches!(char, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_cannot_move_the_cursor() {
        assert_eq!(text("ok\x1b[2J\r\ndone\u{202e}"), "ok [2J  done ");
    }

    #[test]
    fn long_text_is_cut_and_says_so() {
        let kept = text(&"é".repeat(10_000));

        assert_eq!(kept.chars().count(), TEXT_CHARS + 1);
        assert!(kept.ends_with('…'));
    }

    #[test]
    fn only_a_path_is_a_page() {
        assert_eq!(page("/runs/a/b/c"), Some("/runs/a/b/c".to_owned()));
        for other in ["", "runs", "//evil.example/", "https://evil.example/", "/\x1b[2J", "/a b", "/\\evil.example"] {
            assert_eq!(page(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for good in ["localhost", "10.0.0.1", "[::1]", "tracker.example.org", "node_1"] {
            assert_eq!(host(good), Some(good));
        }
        for other in ["", "a/b", "user@host", "a b", "host:1", "::1", "[evil]", "a\r\nb"] {
            assert_eq!(host(other), None, "{other:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_bounded_line(said in any::<String>()) {
            let kept = text(&said);

            prop_assert!(kept.chars().count() <= TEXT_CHARS + 1);
            prop_assert!(!kept.chars().any(char::is_control));
        }
    }
}
