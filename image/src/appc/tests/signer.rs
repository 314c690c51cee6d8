//! A key that signs.

use std::io::Write;

use sequoia_openpgp::armor;
use sequoia_openpgp::cert::{Cert, CertBuilder};
use sequoia_openpgp::policy::StandardPolicy;
use sequoia_openpgp::serialize::SerializeInto;
use sequoia_openpgp::serialize::stream::{Armorer, Message, Signer as Signing};

pub(super) struct Signer(Cert);

impl Signer {
    pub(super) fn new() -> Self {
        let builder = CertBuilder::new().add_userid("Tess Ter <tess@example.com>").add_signing_subkey();
        Self(builder.generate().unwrap().0)
    }

    pub(super) fn public(&self) -> Vec<u8> {
        self.0.armored().to_vec().unwrap()
    }

    pub(super) fn sign(&self, content: &[u8]) -> Vec<u8> {
        let policy = StandardPolicy::new();
        let keys = self.0.keys().secret().with_policy(&policy, None).for_signing();
        let pair = keys.into_iter().next().unwrap().key().clone().into_keypair().unwrap();
        let mut signature = Vec::new();
        let message =
            Armorer::new(Message::new(&mut signature)).kind(armor::Kind::Signature).build().unwrap();
        let mut signer = Signing::new(message, pair).unwrap().detached().build().unwrap();
        signer.write_all(content).unwrap();
        signer.finalize().unwrap();
        signature
    }
}
