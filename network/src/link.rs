//! Names of interfaces.

/// Longest name of an interface, in bytes (`IFNAMSIZ` of linux/if.h, without the NUL).
const NAME_MAX: usize = 15;

/// The interface in the pod for network number `index`.
pub(crate) fn in_pod(index: usize) -> String {
    format!("eth{index}")
}

/// The host's end of it: `hull` and as much of the pod's id as fits.
pub(crate) fn on_host(id: &str, index: usize) -> String {
    let digits = id.chars().filter(char::is_ascii_hexdigit);
    let short: String = digits.take(NAME_MAX - "hull".len() - "-0".len()).collect();
    format!("hull{short}-{index}")
}

/// As `ip link` prints it.
pub(crate) fn mac_text(mac: &[u8]) -> String {
    mac.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit() {
        let name = on_host("0af9c2d4-7e1b-4c3d-9a5e-0123456789ab", 9);
        assert_eq!(name, "hull0af9c2d47-9");
        assert!(name.len() <= NAME_MAX);
        assert_eq!(mac_text(&[2, 0, 0xab, 0, 0, 1]), "02:00:ab:00:00:01");
    }
}
