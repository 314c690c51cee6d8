//! The kernel's command line: what every guest gets, its devices, and what the caller adds.

use std::fmt::Write;

use crate::error::{Error, Kind};
use crate::layout::{CMDLINE, Region, VIRTIO_SIZE};

/// For every guest. `panic=-1 reboot=t`: a panic becomes a triple fault, which ends the machine at once.
/// `tsc=reliable no_timer_check`: no watchdog on a clock that KVM vouches for, no test of a PIT that is
/// not there. `noreplace-smp`: a kernel that finds one CPU rewrites thousands of its instructions, a tenth
/// of its boot. `rcupdate.rcu_expedited=1`: PID 1 mounts and moves processes between cgroups, and each
/// waits for a grace period; a tick or two of nothing at normal speed.
const ALWAYS: &str = "panic=-1 reboot=t tsc=reliable no_timer_check noreplace-smp rcupdate.rcu_expedited=1 \
    random.trust_cpu=on";
/// Without a console nobody reads, and each message costs time.
const SILENT: &str = "quiet loglevel=0 8250.nr_uarts=0";
const SERIAL: &str = "console=ttyS0 8250.nr_uarts=1";

/// Which devices the kernel has to be told of: a window and an interrupt each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MmioDevice {
    pub window: Region,
    pub pin: u8,
}

/// Puts the line together; the caller's words come last, so that they win.
pub(crate) fn build(serial: bool, devices: &[MmioDevice], extra: &str) -> String {
    let mut line = format!("{ALWAYS} {}", if serial { SERIAL } else { SILENT });
    for device in devices {
        // Documentation/admin-guide/kernel-parameters.txt, virtio_mmio.device=<size>@<address>:<irq>
        let size = VIRTIO_SIZE >> 10;
        write!(line, " virtio_mmio.device={size}K@{:#x}:{}", device.window.first, device.pin)
            .expect("writing to a string cannot fail");
    }
    if !extra.is_empty() {
        line.push(' ');
        line.push_str(extra);
    }
    line
}

/// As the kernel reads it.
pub(crate) fn nul_terminated(line: &str) -> Result<Vec<u8>, Error> {
    let bad = |why: String| Error::new(Kind::Config, format!("use the kernel command line: {why}"));
    if let Some(c) = line.chars().find(|c| !matches!(c, ' '..='~')) {
        return Err(bad(format!("it holds {c:?}, only printable ASCII is allowed")));
    }
    if CMDLINE.size <= line.len() as u64 {
        return Err(bad(format!("it has {} bytes, at most {} are allowed", line.len(), CMDLINE.size - 1)));
    }
    Ok([line.as_bytes(), &[0]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_come_before_the_callers_words() {
        let devices = [1_u8, 2]
            .map(|pin| MmioDevice { window: crate::layout::virtio_window(usize::from(pin) - 1), pin });
        let line = build(false, &devices, "loglevel=7 -- x");
        assert!(
            line.ends_with(
                " virtio_mmio.device=4K@0xd0000000:1 virtio_mmio.device=4K@0xd0001000:2 loglevel=7 -- x"
            ),
            "{line}"
        );
        assert!(line.contains("8250.nr_uarts=0") && !line.contains("console="));
        assert!(build(true, &[], "").ends_with("console=ttyS0 8250.nr_uarts=1"));
    }

    #[test]
    fn a_line_that_the_kernel_would_cut_is_refused() {
        assert_eq!(nul_terminated("ab").unwrap(), b"ab\0");
        assert!(nul_terminated(&"x".repeat(2047)).is_ok());
        for bad in ["x".repeat(2048), "a\0b".to_owned(), "a\nb".to_owned(), "ä".to_owned()] {
            assert_eq!(*nul_terminated(&bad).unwrap_err().kind(), Kind::Config);
        }
    }
}
