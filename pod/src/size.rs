//! How large a VM has to be for its apps: the sum of their limits, and what the machine itself takes.

use crate::isolators::{self, Strictness};
use crate::{Error, Kind, Manifest};

/// A VM's memory where no app has a limit, in MiB; and what all apps without a limit get beside those with one.
pub const UNLIMITED_MIB: u32 = 256;

/// Of the guest's memory, what kernel and agent take whatever its size, in MiB; measured, see
/// `docs/decisions/0014-machines-as-large-as-their-apps.md`.
pub const OVERHEAD_MIB: u32 = 40;

/// The kernel keeps 64 bytes for each page of 4096, and tables beside: of so many bytes, one.
const OVERHEAD_SHARE: u32 = 32;

/// Thousandths of a processor in one.
const MILLIS: u32 = 1000;

/// A size, for who asks for none by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub vcpus: u8,
    pub ram_mib: u32,
}

/// The size that the apps' limits come to. No more processors than `processors`, the host's: a limit is a most.
///
/// # Errors
/// Limits that cannot be understood, or are more than a machine can have.
pub fn of_machine(manifest: &Manifest, lenient: bool, processors: u8) -> Result<Size, Error> {
    let mut strictness = Strictness { lenient, warnings: vec![] };
    let (mut memory, mut unlimited, mut millis) = (0_u64, false, 0_u32);
    for app in &manifest.apps {
        let limits = isolators::of_app(app.name.as_str(), &app.app.isolators, &mut strictness)?.limits;
        memory = memory.saturating_add(limits.memory_bytes.unwrap_or(0));
        unlimited |= limits.memory_bytes.is_none();
        millis = millis.saturating_add(limits.cpu_millis.unwrap_or(0));
    }
    let vcpus = millis.div_ceil(MILLIS).clamp(1, processors.max(1).into());
    Ok(Size {
        vcpus: u8::try_from(vcpus).expect("no more than the host's, which fit"),
        ram_mib: ram(memory, unlimited)?,
    })
}

/// `memory` bytes of limits, and whether an app has none.
fn ram(memory: u64, unlimited: bool) -> Result<u32, Error> {
    if memory == 0 {
        return Ok(UNLIMITED_MIB);
    }
    let rest = if unlimited { UNLIMITED_MIB } else { 0 };
    let size = u32::try_from(memory.div_ceil(1 << 20)).ok().and_then(|limits| {
        let sum = limits.checked_add(rest)?;
        sum.checked_add(sum / OVERHEAD_SHARE)?.checked_add(OVERHEAD_MIB)
    });
    size.ok_or_else(|| {
        Error::new(
            Kind::BadFile,
            format!("size the virtual machine: the apps' memory limits are {memory} bytes"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// A pod of apps with these isolators each.
    fn size(apps: &[&[(&str, Value)]], processors: u8) -> Size {
        let app = |(index, isolators): (usize, &&[(&str, Value)])| {
            let isolators: Vec<_> = isolators
                .iter()
                .map(|(name, value)| json!({ "name": name, "value": { "limit": value } }))
                .collect();
            json!({
                "name": format!("a{index}"), "image": { "name": "i", "id": "sha512-0" },
                "app": { "exec": ["/x"], "user": "0", "group": "0", "isolators": isolators },
            })
        };
        let apps: Vec<Value> = apps.iter().enumerate().map(app).collect();
        let pod = json!({ "acVersion": "0.8.11", "acKind": "PodManifest", "apps": apps });
        of_machine(&serde_json::from_value(pod).unwrap(), false, processors).unwrap()
    }

    fn memory(limit: &str) -> (&'static str, Value) {
        ("resource/memory", json!(limit))
    }

    fn cpu(limit: &str) -> (&'static str, Value) {
        ("resource/cpu", json!(limit))
    }

    #[test]
    fn memory_is_the_sum_and_what_the_machine_takes() {
        let ram = |apps: &[&[(&str, Value)]]| size(apps, 4).ram_mib;
        assert_eq!(ram(&[&[], &[]]), UNLIMITED_MIB);
        assert_eq!(ram(&[&[memory("64Mi")]]), 64 + 2 + OVERHEAD_MIB);
        assert_eq!(ram(&[&[memory("1")]]), 1 + OVERHEAD_MIB);
        assert_eq!(ram(&[&[memory("1Gi")], &[memory("512Mi")]]), 1536 + 48 + OVERHEAD_MIB);
        assert_eq!(ram(&[&[memory("64Mi")], &[]]), 64 + 256 + 10 + OVERHEAD_MIB);
        assert!(super::ram(u64::MAX, false).is_err() && super::ram(u64::from(u32::MAX) << 20, true).is_err());
    }

    #[test]
    fn processors_are_the_sum_rounded_up_and_no_more_than_there_are() {
        let vcpus = |apps: &[&[(&str, Value)]], host| size(apps, host).vcpus;
        assert_eq!(vcpus(&[&[]], 8), 1);
        assert_eq!(vcpus(&[&[cpu("500m")], &[cpu("400m")]], 8), 1);
        assert_eq!(vcpus(&[&[cpu("1500m")], &[cpu("1")]], 8), 3);
        assert_eq!(vcpus(&[&[cpu("64")]], 4), 4);
    }
}
