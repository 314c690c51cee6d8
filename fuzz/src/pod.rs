//! What is asked of a running pod, and the files that describe one.

use hull_pod::control::Request;
use hull_pod::export::Entries;
use hull_pod::log::Entry;
use hull_pod::{Manifest, Status};

/// What a client says on the control socket, and that what was understood is said again.
pub(crate) fn control(bytes: &[u8]) {
    let Ok(request) = serde_json::from_slice::<Request>(bytes) else { return };
    let again = serde_json::to_vec(&request).expect("a request is plain data");
    assert_eq!(serde_json::from_slice::<Request>(&again).expect("as it was written"), request);
}

/// The files of an app, as the agent of a VM may lie about them.
pub(crate) fn files(bytes: &[u8]) {
    let mut entries = Entries::new(bytes);
    while let Ok(Some(_)) = entries.next_entry() {}
}

/// `--pod-manifest`, and what lies in a pod's directory.
pub(crate) fn documents(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Manifest>(bytes); // Refusing is right; panicking is not.
    let _ = serde_json::from_slice::<Status>(bytes); // Likewise.
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = Entry::parse(line); // Likewise.
    }
}
