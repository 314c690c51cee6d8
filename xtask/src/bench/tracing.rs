//! Counts VM exits with histograms in the kernel: Documentation/trace/histogram.rst. Every VM on the host
//! is counted, so nothing else may run one.
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use hull_errors::Doing;

use super::exits::{Counts, Table, parse};
use super::options::Host;
use crate::error::{Error, Kind, Result};

const EVENTS: &str = "/sys/kernel/tracing/events/kvm";

/// Each exit from a guest to KVM, and each from KVM to the VMM.
const TO_KVM: Histogram = Histogram { event: "kvm_exit", keys: "isa,exit_reason" };
const TO_VMM: Histogram = Histogram { event: "kvm_userspace_exit", keys: "reason" };

/// A kernel that can count.
#[derive(Debug)]
pub(super) struct Tracing(());

impl Tracing {
    /// `None` where the host cannot count; the lab can.
    pub(super) fn find(host: Host) -> Result<Option<Self>> {
        match (Path::new(EVENTS).join(TO_KVM.event).join("hist").exists(), host) {
            (true, _) => Ok(Some(Self(()))),
            (false, Host::Native) => Ok(None),
            (false, Host::Lab) => Err(Error::new(Kind::Lab, format!("find KVM's tracepoints in {EVENTS}"))),
        }
    }

    pub(super) fn start(&self) -> Result<Counting> {
        // Made first, so that a failure to start the second ends the first.
        let counting = Counting(());
        TO_KVM.tell("")?;
        TO_VMM.tell("")?;
        Ok(counting)
    }
}

/// Histograms that fill. Dropping it takes them away.
#[derive(Debug)]
pub(super) struct Counting(());

impl Counting {
    /// What came so far.
    pub(super) fn read(&self) -> Result<Counts> {
        Ok(Counts { to_kvm: TO_KVM.read()?, to_vmm: TO_VMM.read()? })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        for histogram in [TO_KVM, TO_VMM] {
            // It fails where there is nothing to take away.
            let _ = histogram.write(&format!("!{}", histogram.command("")));
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Histogram {
    event: &'static str,
    keys: &'static str,
}

impl Histogram {
    fn command(self, what: &str) -> String {
        format!("hist:keys={}{what}", self.keys)
    }

    fn tell(self, what: &str) -> Result<()> {
        self.write(&self.command(what))
    }

    fn write(self, command: &str) -> Result<()> {
        let path = Path::new(EVENTS).join(self.event).join("trigger");
        let doing = || format!("write {command} to {}", path.display());
        // Opened to truncate, it loses what is there; to append, it keeps the counts.
        let mut file = OpenOptions::new().append(true).open(&path).doing(Kind::Failed, doing)?;
        file.write_all(format!("{command}\n").as_bytes()).doing(Kind::Failed, doing)
    }

    fn read(self) -> Result<Table> {
        let path = Path::new(EVENTS).join(self.event).join("hist");
        let text = fs::read_to_string(&path).doing(Kind::Failed, || format!("read {}", path.display()))?;
        parse(&text).ok_or_else(|| Error::new(Kind::Failed, format!("understand {}", path.display())))
    }
}
