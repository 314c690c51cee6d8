//! The driver handshake, virtio 1.2 section 3.1.1, as a pure table.

/// Bits of the status register, section 2.1.
const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
pub(super) const NEEDS_RESET: u32 = 64;
const FAILED: u32 = 128;

/// How far the driver has come.
///
/// ```text
/// Reset -> Acknowledged -> Driver -> Negotiated -> Live
///   ^           |            |           |          |
///   +-- 0 ------+------------+-----------+----------+--- FAILED -> Failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Reset,
    Acknowledged,
    Driver,
    Negotiated,
    Live,
    Failed,
}

/// What the transport has to do for a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    ResetDevice,
    /// The step stands only if the features are acceptable.
    CheckFeatures,
    Activate,
    /// The driver wants no more of the device, until it resets it.
    GiveUp,
}

impl Phase {
    /// `None`: an illegal step, the phase stays. Legacy drivers, which skip FEATURES_OK, are refused.
    pub(super) fn on_write(self, status: u32) -> Option<(Phase, Effect)> {
        const ACK: u32 = ACKNOWLEDGE;
        const DRV: u32 = ACK | DRIVER;
        const NEG: u32 = DRV | FEATURES_OK;
        const LIVE: u32 = NEG | DRIVER_OK;
        // The driver writes back what it reads: the device's own bit may be among it.
        match (self, status & !NEEDS_RESET) {
            (_, 0) => Some((Phase::Reset, Effect::ResetDevice)),
            (_, bits) if bits & FAILED != 0 => Some((Phase::Failed, Effect::GiveUp)),
            (Phase::Reset, ACK) => Some((Phase::Acknowledged, Effect::Nothing)),
            (Phase::Acknowledged, DRV) => Some((Phase::Driver, Effect::Nothing)),
            (Phase::Driver, NEG) => Some((Phase::Negotiated, Effect::CheckFeatures)),
            (Phase::Negotiated, LIVE) => Some((Phase::Live, Effect::Activate)),
            _ => None,
        }
    }

    /// What the driver reads.
    pub(super) fn bits(self) -> u32 {
        match self {
            Phase::Reset => 0,
            Phase::Acknowledged => ACKNOWLEDGE,
            Phase::Driver => ACKNOWLEDGE | DRIVER,
            Phase::Negotiated => ACKNOWLEDGE | DRIVER | FEATURES_OK,
            Phase::Live => ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK,
            Phase::Failed => FAILED,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(writes: &[u32], want: Option<(Phase, Effect)>) {
        let start = (Phase::Reset, Effect::Nothing);
        let got = writes.iter().try_fold(start, |(phase, _), write| phase.on_write(*write));
        assert_eq!(got, want, "after {writes:?}");
    }

    #[test]
    fn handshake() {
        check(&[1], Some((Phase::Acknowledged, Effect::Nothing)));
        check(&[1, 3, 11], Some((Phase::Negotiated, Effect::CheckFeatures)));
        check(&[0, 1, 3, 11, 15], Some((Phase::Live, Effect::Activate)));
        check(&[1, 3, 11, 15, 0], Some((Phase::Reset, Effect::ResetDevice)));
        check(&[1, 3, 11, 15, 79 | 128], Some((Phase::Failed, Effect::GiveUp)));
        check(&[1, 131], Some((Phase::Failed, Effect::GiveUp)));
        check(&[1, 131, 0, 1], Some((Phase::Acknowledged, Effect::Nothing)));
    }

    #[test]
    fn illegal_steps() {
        // No acknowledge; no driver; skipped FEATURES_OK; a legacy driver; twice; back; failed stays.
        for writes in [
            &[3][..],
            &[1, 11],
            &[1, 3, 15],
            &[1, 3, 7],
            &[1, 3, 11, 15, 15],
            &[1, 3, 11, 3],
            &[1, 131, 3],
            &[1, 1],
            &[!128],
        ] {
            check(writes, None);
        }
    }

    #[test]
    fn bits_lead_back_to_the_phase() {
        for phase in [Phase::Acknowledged, Phase::Driver, Phase::Negotiated, Phase::Live] {
            let below = [Phase::Reset, Phase::Acknowledged, Phase::Driver, Phase::Negotiated];
            let steps = below.iter().filter_map(|p| p.on_write(phase.bits())).collect::<Vec<_>>();
            assert_eq!(steps.len(), 1, "exactly one phase leads to {phase:?}");
            assert_eq!(steps[0].0, phase);
        }
    }
}
