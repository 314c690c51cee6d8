//! Which images the pods of this data directory cannot do without.

use std::collections::{BTreeMap, BTreeSet};

use hull_errors::Doing;
use hull_image::ImageId;
use hull_pod::{Found, Kind as PodKind, PodId, Pods, State};

use crate::{Error, Kind};

/// For each image the pods that run it or are about to.
#[derive(Debug, Default)]
pub(super) struct Users(BTreeMap<ImageId, Vec<(PodId, State)>>);

impl Users {
    /// Whoever asks keeps others from beginning to use an image meanwhile.
    ///
    /// # Errors
    /// A pod that does not say what it uses: nothing is removed then.
    pub(super) fn find(pods: &Pods) -> Result<Self, Error> {
        let mut users = Self::default();
        for found in pods.list().doing(Kind::Host, || "list the pods".into())? {
            users.add(pods, found)?;
        }
        Ok(users)
    }

    pub(super) fn images(&self) -> BTreeSet<ImageId> {
        self.0.keys().cloned().collect()
    }

    /// `pod 0af9c2d4-… is running`
    pub(super) fn of(&self, image: &ImageId) -> String {
        let said = |(id, state): &(PodId, State)| format!("pod {id} is {}", state.as_str());
        self.0.get(image).into_iter().flatten().map(said).collect::<Vec<_>>().join(", ")
    }

    fn add(&mut self, pods: &Pods, mut found: Found) -> Result<(), Error> {
        loop {
            // What has ended keeps nothing; whoever prepares a pod holds the store until it has a manifest.
            if !matches!(found.state, State::Preparing | State::Prepared | State::Running) {
                return Ok(());
            }
            let why = match found.manifest() {
                Ok(manifest) => {
                    for app in manifest.apps {
                        let doing = || format!("find out which image pod {} uses", found.id);
                        let image = app.image.id.parse().doing(Kind::Host, doing)?;
                        self.0.entry(image).or_default().push((found.id.clone(), found.state));
                    }
                    return Ok(());
                }
                Err(_) if found.state == State::Preparing => return Ok(()),
                Err(why) => why,
            };
            // A pod moves while it is looked at, but only forward, and so not for ever.
            let again = pods.list().doing(Kind::Host, || "list the pods".into())?;
            match again.into_iter().find(|other| other.id == found.id) {
                Some(moved) if *why.kind() == PodKind::Missing && moved.path() != found.path() => {
                    found = moved;
                }
                None => return Ok(()),
                Some(_) => {
                    let doing = format!("find out which images pod {} uses", found.id);
                    return Err(Error::because(Kind::Host, doing, why));
                }
            }
        }
    }
}
