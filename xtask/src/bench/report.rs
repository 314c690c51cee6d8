//! The figures as one JSON object, and as a table for people.
use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::contender::Contender;
use super::exits::{Counts, Exits};
use super::figures::{Figures, Measured, Spread};
use super::options::Host;

/// What hull wants to reach: exits to the first byte, milliseconds to the exit code, MiB.
const EXITS_AIM: u64 = 800;
const TOTAL_MS_AIM: f64 = 60.0;
const MEMORY_MIB_AIM: f64 = 3.0;

/// Why a figure is what it is.
const NOTES: [&str; 4] = [
    "kernel_bytes_copied of QEMU is the sum of the kernel's PT_LOAD file sizes, which its ROM loader copies",
    "vmm_memory_mib is resident memory without guest RAM and images mapped into the guest",
    "both guests have the same kernel, EROFS image, RAM and number of vCPUs; QEMU's init does less than the agent",
    "exits are counted in runs of their own, because counting costs time",
];
const LAB_NOTE: &str = "a millisecond is a million instructions of the emulated host";
const NATIVE_NOTE: &str = "measured on this host's own KVM: virtual_ms are milliseconds of its clock";

pub(super) fn json(figures: &Figures) -> Value {
    let mut object = measured(&figures.hull);
    let versions: Map<String, Value> =
        figures.versions.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect();
    let notes: Vec<&str> = std::iter::once(host_note(figures.host)).chain(NOTES).collect();
    let rest = [
        ("contender", json!(Contender::Hull.name())),
        ("host", json!(figures.host.name())),
        ("runs", json!(figures.runs)),
        ("versions", versions.into()),
        (
            "aims",
            json!({ "exits": EXITS_AIM, "virtual_ms_total": TOTAL_MS_AIM, "vmm_memory_mib": MEMORY_MIB_AIM }),
        ),
        ("notes", json!(notes)),
        ("peers", json!({ Contender::Qemu.name(): measured(&figures.qemu) })),
    ];
    object.extend(rest.map(|(name, value)| (name.to_owned(), value)));
    object.into()
}

fn host_note(host: Host) -> &'static str {
    match host {
        Host::Lab => LAB_NOTE,
        Host::Native => NATIVE_NOTE,
    }
}

fn measured(m: &Measured) -> Map<String, Value> {
    let reasons = |table: Vec<(String, u64)>| -> Value {
        table.into_iter().map(|(name, count)| (name, json!(count))).collect::<Map<_, _>>().into()
    };
    let exits = m.exits.as_ref();
    let first = exits.map(|exits| &exits.first_byte);
    let range = |spread: Spread| json!([round(spread.min), round(spread.max)]);
    let fields = [
        ("exits", json!(first.map(Counts::all))),
        ("exits_by_reason", json!(first.map(|counts| reasons(counts.by_reason())))),
        ("exits_to_user_space", json!(first.map(Counts::to_user_space))),
        ("exits_to_user_space_by_reason", json!(first.map(|counts| reasons(counts.by_user_reason())))),
        ("exits_total", json!(exits.map(|exits| exits.total.all()))),
        ("virtual_ms_first_byte", json!(round(m.first_byte.median))),
        ("virtual_ms_first_byte_range", range(m.first_byte)),
        ("virtual_ms_total", json!(round(m.total.median))),
        ("virtual_ms_total_range", range(m.total)),
        ("vmm_memory_mib", json!(mib(m.memory.own))),
        ("vmm_memory_private_mib", json!(mib(m.memory.private))),
        ("guest_memory_mib", json!(mib(m.memory.guest))),
        ("kernel_bytes_copied", json!(m.kernel_bytes_copied)),
    ];
    fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
}

/// To microseconds, or to a thousandth of a MiB.
fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn mib(kib: u64) -> f64 {
    round(kib as f64 / 1024.0)
}

pub(super) fn table(figures: &Figures) -> String {
    let (hull, qemu) = (&figures.hull, &figures.qemu);
    let mut text = String::new();
    let mut row = |name: &str, hull: &str, qemu: &str, aim: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:34} {hull:>24} {qemu:>24} {aim:>8}");
    };
    row("", Contender::Hull.name(), Contender::Qemu.name(), "aim");
    let both = |of: &dyn Fn(&Measured) -> String| [of(hull), of(qemu)];
    let count = |of: &dyn Fn(&Exits) -> u64| {
        both(&|m| m.exits.as_ref().map_or_else(|| "not counted".into(), |exits| of(exits).to_string()))
    };
    let time = |spread: Spread| format!("{:.2} ({:.2}-{:.2})", spread.median, spread.min, spread.max);
    let rows = [
        ("VM exits to the first byte", count(&|e| e.first_byte.all()), format!("<= {EXITS_AIM}")),
        ("  of these to user space", count(&|e| e.first_byte.to_user_space()), String::new()),
        ("VM exits to the end", count(&|e| e.total.all()), String::new()),
        ("ms to the first byte", both(&|m| time(m.first_byte)), String::new()),
        ("ms to the exit code", both(&|m| time(m.total)), format!("<= {TOTAL_MS_AIM}")),
        (
            "MiB of the VMM's own",
            both(&|m| format!("{:.2}", mib(m.memory.own))),
            format!("<= {MEMORY_MIB_AIM}"),
        ),
        ("  of these private", both(&|m| format!("{:.2}", mib(m.memory.private))), String::new()),
        ("MiB of the guest's", both(&|m| format!("{:.1}", mib(m.memory.guest))), String::new()),
        ("bytes of kernel copied", both(&|m| m.kernel_bytes_copied.to_string()), String::new()),
    ];
    for (name, [hull, qemu], aim) in rows {
        row(name, &hull, &qemu, &aim);
    }
    for (contender, m) in [(Contender::Hull, hull), (Contender::Qemu, qemu)] {
        if let Some(exits) = &m.exits {
            let counts = &exits.first_byte;
            let _ = writeln!(text, "{} exits: {}", contender.name(), line(&counts.by_reason()));
            let _ = writeln!(text, "{} to user space: {}", contender.name(), line(&counts.by_user_reason()));
        }
    }
    let versions: Vec<String> = figures.versions.iter().map(|(name, v)| format!("{name}: {v}")).collect();
    let _ = writeln!(text, "{} runs on {}; {}", figures.runs, figures.host.name(), versions.join("; "));
    let _ = writeln!(text, "{}", host_note(figures.host));
    text
}

fn line(table: &[(String, u64)]) -> String {
    table.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::exits::Table;
    use crate::bench::memory::Memory;

    fn figures() -> Figures {
        let counts = |count| Counts {
            to_kvm: Table::from([(vec![2, 0x72], 1), (vec![2, 0x400], count)]),
            to_vmm: Table::from([(vec![6], 2)]),
        };
        let hull = Measured {
            first_byte: Spread { median: 41.5, min: 41.0, max: 42.0 },
            total: Spread { median: 50.000_4, min: 49.0, max: 51.0 },
            exits: Some(Exits { first_byte: counts(600), total: counts(700) }),
            memory: Memory { own: 2048, private: 1024, guest: 40960 },
            kernel_bytes_copied: 17,
        };
        let qemu = Measured { exits: None, ..hull };
        Figures { host: Host::Lab, runs: 5, versions: vec![("hull", "hull 1".into())], hull, qemu }
    }

    #[test]
    fn the_object_has_every_figure_for_hull_and_peer() {
        let object = json(&figures());
        let keys = ["virtual_ms_first_byte", "virtual_ms_total", "vmm_memory_mib", "kernel_bytes_copied"];
        for contender in [&object, &object["peers"]["qemu-microvm"]] {
            assert!(keys.iter().all(|key| contender[*key].is_number()), "{contender}");
        }
        assert_eq!(object["exits"], 601);
        assert_eq!(object["exits_by_reason"]["npf"], 600);
        assert_eq!(object["exits_to_user_space"], 2);
        assert_eq!(object["virtual_ms_total"], 50.0);
        assert_eq!(object["host"], "lab-icount");
        assert!(object["peers"]["qemu-microvm"]["exits"].is_null());
    }

    #[test]
    fn the_table_has_the_aims_beside() {
        let text = table(&figures());
        let row = text.lines().find(|line| line.starts_with("VM exits to the first byte")).unwrap();
        assert_eq!(
            row.split_whitespace().skip(6).collect::<Vec<_>>(),
            ["601", "not", "counted", "<=", "800"]
        );
        assert!(text.contains("hull-kvm exits: npf 600, cpuid 1"));
    }
}
