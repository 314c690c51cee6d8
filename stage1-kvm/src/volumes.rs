//! What the host brings into a VM as volumes: directories and files by a server each, block devices as disks.

use std::fs::File;
use std::path::Path;

use hull_agent_protocol::VolumeSource;
use hull_errors::Doing;
use hull_pod::Flavour;
use hull_pod::volumes::{self, Backing};
use hull_stage1::volumes::{HostVolume, Shape};
use hull_stage1::{Kind, Pod};
use hull_vmm::{Disk, Filesystem};

use crate::servers::Server;
use crate::{Error, limits, plan};

/// What the servers of files call a file that is a volume.
const FILE: &str = "file";

/// The volumes of a pod, opened.
#[derive(Debug, Default)]
pub(crate) struct Brought {
    /// Where the agent finds each of the pod's volumes; `None` for those that it makes itself.
    pub(crate) sources: Vec<Option<VolumeSource>>,
    /// Behind those of the images.
    pub(crate) disks: Vec<Disk>,
    /// They have to live as long as the machine.
    pub(crate) servers: Vec<Server>,
    tags: Vec<String>,
}

impl Brought {
    /// Opens every volume of the host's, and starts the servers.
    pub(crate) fn open(pod: &Pod, cgroup: Option<&Path>) -> Result<Self, Error> {
        let all = volumes::resolve(&pod.manifest, Flavour::Kvm)
            .doing(Kind::Contract, || "find out which volumes the pod has".into())?;
        let mut brought = Self::default();
        for (index, used) in all.used.iter().enumerate() {
            let source = match &used.kind {
                Backing::Empty { .. } => None,
                Backing::Host(source) => {
                    let volume = HostVolume::open(&used.name, source)?;
                    Some(brought.bring(index, &used.name, &volume, pod, cgroup)?)
                }
            };
            brought.sources.push(source);
        }
        Ok(brought)
    }

    fn bring(
        &mut self,
        index: usize,
        name: &str,
        volume: &HostVolume<'_>,
        pod: &Pod,
        cgroup: Option<&Path>,
    ) -> Result<VolumeSource, Error> {
        let read_only = volume.is_read_only();
        match volume.shape() {
            Shape::Directory | Shape::File => {
                let tag = format!("volume{index}");
                let server = Server::start(name, volume, pod.contract.debug)?;
                if let Some(cgroup) = cgroup {
                    limits::put(cgroup, server.pid())?;
                }
                self.servers.push(server);
                self.tags.push(tag.clone());
                let file = (volume.shape() == Shape::File).then(|| FILE.into());
                Ok(VolumeSource::Shared { tag, read_only, file })
            }
            Shape::BlockDevice => {
                let file: File = volume.open_itself()?;
                let path = plan::disk(pod.contract.roots.len() + self.disks.len())?;
                self.disks.push(Disk { file, read_only });
                Ok(VolumeSource::Device { path, read_only })
            }
            Shape::CharacterDevice | Shape::Endpoint => Err(Error::new(
                Kind::Host,
                format!(
                    "volume {name}: a VM has no way to a socket, a pipe or a character device of the host's; give it a \
                     file, a directory or a block device, or use --stage1=nspawn"
                ),
            )),
        }
    }

    /// Waits for the servers.
    pub(crate) fn filesystems(&self) -> Result<Vec<Filesystem>, Error> {
        let both = self.tags.iter().zip(&self.servers);
        both.map(|(tag, server)| Ok(Filesystem { tag: tag.clone(), server: server.socket()? })).collect()
    }
}
