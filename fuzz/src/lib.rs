//! One function for each parser of bytes from outside: it may refuse them, it may not panic, hang or
//! grow without bound.
//!
//! `cargo test` gives each target its corpus; `cargo xtask fuzz` searches on from there. Seeds are in
//! `corpus/TARGET/`, small and readable; what a search finds is kept in the cache, and an input that
//! once broke a target becomes a seed.
#![forbid(unsafe_code)]

mod agent;
mod conversion;
mod pod;

/// One parser, and how to give it bytes.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its folder in the corpus.
    pub name: &'static str,
    pub run: fn(&[u8]),
}

/// All of them, by name.
pub const TARGETS: &[Target] = &[
    Target { name: "aci-manifest", run: hull_image::fuzzing::aci_manifest },
    Target { name: "aci-name", run: hull_image::fuzzing::aci_name },
    Target { name: "agent-conversation", run: agent::conversation },
    Target { name: "agent-entries", run: agent::entries },
    Target { name: "agent-orders", run: agent::orders },
    Target { name: "converter-answer", run: conversion::answer },
    Target { name: "converter-compressed", run: hull_converter::fuzzing::compressed },
    Target { name: "converter-conversion", run: conversion::whole },
    Target { name: "converter-entries", run: hull_converter::fuzzing::entries },
    Target { name: "converter-pax", run: hull_converter::fuzzing::pax },
    Target { name: "discovery-page", run: hull_image::fuzzing::discovery },
    Target { name: "download-headers", run: hull_image::fuzzing::download_headers },
    Target { name: "image-configuration", run: hull_image::fuzzing::configuration },
    Target { name: "image-document", run: hull_image::fuzzing::document },
    Target { name: "image-file-system", run: hull_image::fuzzing::file_system },
    Target { name: "image-reference", run: hull_image::fuzzing::reference },
    Target { name: "network-configuration", run: hull_network::fuzzing::configuration },
    Target { name: "network-words", run: hull_network::fuzzing::words },
    Target { name: "pod-control", run: pod::control },
    Target { name: "pod-documents", run: pod::documents },
    Target { name: "pod-files", run: pod::files },
    Target { name: "registries-conf", run: hull_image::fuzzing::registries },
    Target { name: "registry-certificates", run: hull_image::fuzzing::certificates },
    Target { name: "registry-credentials", run: hull_image::fuzzing::credentials },
    Target { name: "registry-headers", run: hull_image::fuzzing::registry_headers },
    Target { name: "registry-token", run: hull_image::fuzzing::registry_token },
    Target { name: "settings", run: hull_image::fuzzing::settings },
    Target { name: "store-record", run: hull_image::fuzzing::record },
    Target { name: "trust-bundle", run: hull_image::fuzzing::bundle },
    Target { name: "trust-cosign-key", run: hull_image::fuzzing::cosign_key },
    Target { name: "trust-openpgp-key", run: hull_image::fuzzing::openpgp_key },
    Target { name: "trust-openpgp-signature", run: hull_image::fuzzing::openpgp_signature },
    Target { name: "trust-payload", run: hull_image::fuzzing::payload },
    Target { name: "trust-policy", run: hull_image::fuzzing::policy },
    Target { name: "vmm-balloon", run: hull_vmm::fuzzing::balloon },
    Target { name: "vmm-block", run: hull_vmm::fuzzing::block },
    Target { name: "vmm-boot-tables", run: hull_vmm::fuzzing::boot_tables },
    Target { name: "vmm-command-line", run: hull_vmm::fuzzing::command_line },
    Target { name: "vmm-cpuid", run: hull_vmm::fuzzing::cpuid },
    Target { name: "vmm-file-server", run: hull_vmm::fuzzing::file_server },
    Target { name: "vmm-initramfs", run: hull_vmm::fuzzing::initramfs },
    Target { name: "vmm-ioapic", run: hull_vmm::fuzzing::ioapic },
    Target { name: "vmm-kernel", run: hull_vmm::fuzzing::kernel },
    Target { name: "vmm-limits", run: hull_vmm::fuzzing::limits },
    Target { name: "vmm-mmio", run: hull_vmm::fuzzing::mmio },
    Target { name: "vmm-net", run: hull_vmm::fuzzing::net },
    Target { name: "vmm-pmem", run: hull_vmm::fuzzing::pmem },
    Target { name: "vmm-queue", run: hull_vmm::fuzzing::queue },
    Target { name: "vmm-rng", run: hull_vmm::fuzzing::rng },
    Target { name: "vmm-serial", run: hull_vmm::fuzzing::serial },
    Target { name: "vmm-vsock-packets", run: hull_vmm::fuzzing::vsock_packets },
    Target { name: "vmm-vsock-queues", run: hull_vmm::fuzzing::vsock_queues },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    use super::*;

    fn corpus() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus")
    }

    #[test]
    fn every_target_has_a_corpus_and_every_corpus_a_target() {
        let folders: BTreeSet<String> =
            fs::read_dir(corpus()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        let names: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
        assert_eq!(folders, names);
        assert!(TARGETS.is_sorted_by_key(|target| target.name), "by name");
    }

    #[test]
    fn seeds_break_nothing() {
        for target in TARGETS {
            (target.run)(b"");
            let seeds: Vec<_> = fs::read_dir(corpus().join(target.name)).unwrap().collect();
            assert!(!seeds.is_empty(), "{} has no seed", target.name);
            for seed in seeds {
                (target.run)(&fs::read(seed.unwrap().path()).unwrap());
            }
        }
    }
}
