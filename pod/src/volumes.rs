//! Which volumes a pod has, and where its apps find them (appc spec 0.8.11, `spec/pods.md`; rkt's rules where
//! that leaves room).
//!
//! A mount names a volume and a path. A mount point of the image that no mount covers takes the volume of its own
//! name, and where there is none an empty one.

use hull_agent_protocol::{AppSpec, MountSpec, PodSpec, VolumeSource};

use crate::manifest::{COPY_UP, Manifest, Mount, MountPoint, RuntimeApp, Volume, VolumeKind};
use crate::{AppName, Error, Flavour, Kind, isolators};

/// Longest path that the kernel takes, in bytes (`PATH_MAX` of linux/limits.h, less the NUL).
const PATH_MAX: usize = 4095;

/// The volumes that apps mount, and their mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volumes {
    /// In the order in which the agent is told of them.
    pub used: Vec<Used>,
    /// Each app's, in the manifest's order.
    pub(crate) mounts: Vec<Vec<MountSpec>>,
    pub(crate) warnings: Vec<String>,
}

/// A volume that is mounted somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    /// Unique in the pod.
    pub name: String,
    pub kind: Backing,
}

/// What a volume is made of, with nothing left open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backing {
    /// In the machine's memory.
    Empty { mode: u32, uid: u32, gid: u32, size_bytes: Option<u64> },
    /// Of the host's.
    Host(HostSource),
}

/// A file, directory or device node of the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSource {
    /// Absolute; symbolic links lead where they lead when the pod starts.
    pub path: String,
    /// Mounts below it come along.
    pub recursive: bool,
    /// No app may write to it.
    pub read_only: bool,
}

impl Used {
    /// What the agent makes itself; `None` where stage1 has to bring it.
    pub(crate) fn made_by_agent(&self) -> Option<VolumeSource> {
        match self.kind {
            Backing::Empty { mode, uid, gid, size_bytes } => {
                Some(VolumeSource::Empty { mode, uid, gid, size_bytes })
            }
            Backing::Host(_) => None,
        }
    }
}

/// Finds out which volume goes where.
///
/// # Errors
/// A volume that is not there, is there twice or is malformed; a path that is no place for one; too many.
pub fn resolve(manifest: &Manifest, flavour: Flavour) -> Result<Volumes, Error> {
    check_names(&manifest.volumes)?;
    let mut resolved = Volumes::default();
    for app in &manifest.apps {
        let mounts = Resolving { manifest, flavour, app, to: &mut resolved }.mounts()?;
        if mounts.len() > AppSpec::MOUNTS_MAX {
            return refuse(format!(
                "app {} mounts {}, at most {}",
                app.name,
                mounts.len(),
                AppSpec::MOUNTS_MAX
            ));
        }
        resolved.mounts.push(mounts);
    }
    if resolved.used.len() > PodSpec::VOLUMES_MAX {
        return refuse(format!(
            "a pod with {} volumes, at most {}",
            resolved.used.len(),
            PodSpec::VOLUMES_MAX
        ));
    }
    let is_used = |volume: &&Volume| !resolved.used.iter().any(|used| used.name == volume.name);
    let idle = manifest.volumes.iter().filter(is_used).map(|volume| {
        format!("volume {}: no app mounts it and no image has a mount point of that name", volume.name)
    });
    resolved.warnings.extend(idle.collect::<Vec<_>>());
    resolved.write_protect();
    Ok(resolved)
}

fn refuse<T>(text: String) -> Result<T, Error> {
    Err(Error::new(Kind::BadFile, text))
}

fn check_names(volumes: &[Volume]) -> Result<(), Error> {
    for (index, volume) in volumes.iter().enumerate() {
        if volume.name.parse::<AppName>().is_err() {
            return refuse(format!(
                "volume {:?}: a name is of lower-case letters, digits and single dashes",
                volume.name
            ));
        }
        if volumes[..index].iter().any(|other| other.name == volume.name) {
            return refuse(format!("volume {} is there twice; give one of them another name", volume.name));
        }
    }
    Ok(())
}

impl Volumes {
    fn add(&mut self, name: String, kind: Backing) {
        if !self.used.iter().any(|used| used.name == name) {
            self.used.push(Used { name, kind });
        }
    }

    /// A volume that nobody may write to is read-only as a whole, so that it is stage1 that sees to it.
    fn write_protect(&mut self) {
        for used in &mut self.used {
            let Backing::Host(source) = &mut used.kind else { continue };
            let mut mounts = self.mounts.iter().flatten().filter(|mount| mount.volume == used.name);
            source.read_only = mounts.all(|mount| mount.read_only);
        }
    }
}

struct Resolving<'a> {
    manifest: &'a Manifest,
    flavour: Flavour,
    app: &'a RuntimeApp,
    to: &'a mut Volumes,
}

impl<'a> Resolving<'a> {
    fn mounts(mut self) -> Result<Vec<MountSpec>, Error> {
        let app = self.app;
        let mut mounts: Vec<MountSpec> = vec![];
        for mount in &app.mounts {
            let target = self.target(&mount.path)?;
            let spec = match &mount.app_volume {
                Some(own) => self.mount(&self.own(own)?, target, self.point(mount))?,
                None => self.mount(self.declared_by(mount)?, target, self.point(mount))?,
            };
            // What is said later counts.
            mounts.retain(|other| other.target != spec.target);
            mounts.push(spec);
        }
        for point in &app.app.mount_points {
            let target = self.target(&point.path)?;
            if mounts.iter().any(|mount| mount.target == target) {
                continue;
            }
            mounts.push(match self.declared(&point.name) {
                Some(volume) => self.mount(volume, target, Some(point))?,
                None => self.mount(&self.implicit(point)?, target, Some(point))?,
            });
        }
        // What is mounted in another volume comes after that.
        mounts.sort_by_key(|mount| mount.target.matches('/').count());
        Ok(mounts)
    }

    fn declared(&self, name: &str) -> Option<&'a Volume> {
        self.manifest.volumes.iter().find(|volume| volume.name == name)
    }

    fn declared_by(&self, mount: &Mount) -> Result<&'a Volume, Error> {
        self.declared(&mount.volume).map_or_else(
            || {
                let (app, name, path) = (&self.app.name, &mount.volume, &mount.path);
                refuse(format!(
                    "app {app} mounts volume {name:?} at {path:?}, and the pod has none of that name; describe it \
                     with --volume={name},kind=host,source=PATH or kind=empty"
                ))
            },
            Ok,
        )
    }

    /// A volume that no other app sees.
    fn own(&self, volume: &Volume) -> Result<Volume, Error> {
        let name = format!("{}-{}", self.app.name, volume.name);
        match self.declared(&name) {
            None => Ok(Volume { name, ..volume.clone() }),
            Some(_) => refuse(format!("volume {name} is one of the pod's and one of app {}", self.app.name)),
        }
    }

    /// What a mount point gets that nobody has thought of.
    fn implicit(&self, point: &MountPoint) -> Result<Volume, Error> {
        if self.flavour == Flavour::Fly {
            return refuse(format!(
                "app {} has a mount point {:?} at {:?}, and --stage1=fly makes no volume by itself; give it one with \
                 --volume={},kind=host,source=PATH or kind=empty",
                self.app.name, point.name, point.path, point.name
            ));
        }
        let kind = VolumeKind::Empty { mode: None, uid: None, gid: None, size: None };
        Ok(Volume { name: format!("{}-{}", self.app.name, point.name), kind, read_only: None })
    }

    /// The image's word on a mount.
    fn point(&self, mount: &Mount) -> Option<&'a MountPoint> {
        let path = normal(&mount.path);
        let same = |point: &&MountPoint| point.name == mount.volume || normal(&point.path) == path;
        self.app.app.mount_points.iter().find(same)
    }

    fn target(&self, path: &str) -> Result<String, Error> {
        normal(path).or_else(|why| refuse(format!("mount at {path:?} of app {}: {why}", self.app.name)))
    }

    fn mount(
        &mut self,
        volume: &Volume,
        target: String,
        point: Option<&MountPoint>,
    ) -> Result<MountSpec, Error> {
        let kind = backing(volume, self.flavour)
            .or_else(|why| refuse(format!("use volume {}: {why}", volume.name)))?;
        let read_only = volume.read_only.unwrap_or_else(|| point.is_some_and(|point| point.read_only));
        let is_points = point.is_some_and(|point| normal(&point.path).is_ok_and(|path| path == target));
        let copy_up = matches!(kind, Backing::Empty { .. })
            && is_points
            && self.app.annotation(COPY_UP) == Some("true");
        let recursive = !matches!(&kind, Backing::Host(source) if !source.recursive);
        self.to.add(volume.name.clone(), kind);
        Ok(MountSpec { volume: volume.name.clone(), target, read_only, recursive, copy_up })
    }
}

fn backing(volume: &Volume, flavour: Flavour) -> Result<Backing, String> {
    match &volume.kind {
        VolumeKind::Empty { mode, uid, gid, size } => Ok(Backing::Empty {
            mode: mode.as_deref().map_or(Ok(0o755), permissions)?,
            uid: uid.unwrap_or(0),
            gid: gid.unwrap_or(0),
            size_bytes: size.as_deref().map(isolators::bytes).transpose()?,
        }),
        VolumeKind::Host { source, recursive } => Ok(Backing::Host(HostSource {
            path: host_path(source)?.into(),
            recursive: recursive.unwrap_or(flavour != Flavour::Fly),
            read_only: false,
        })),
    }
}

/// Octal, as chmod(1) has it.
fn permissions(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777 && !text.starts_with('+'));
    mode.ok_or_else(|| format!("mode {text:?} is none such as 0755"))
}

fn host_path(path: &str) -> Result<&str, String> {
    match path {
        path if !path.starts_with('/') => Err(format!("source {path:?} is no absolute path")),
        path if path.contains('\0') || path.len() > PATH_MAX => {
            Err("source is a path that no file can have".into())
        }
        path => Ok(path),
    }
}

/// An absolute path below the root, with no part that means nothing.
fn normal(path: &str) -> Result<String, &'static str> {
    let parts = || path.split('/').filter(|part| !part.is_empty() && *part != ".");
    match path {
        path if !path.starts_with('/') => Err("the path is not absolute"),
        path if path.contains('\0') || path.len() > PATH_MAX => Err("no file can have such a path"),
        _ if parts().any(|part| part == "..") => Err("the path must not have \"..\" in it"),
        _ if parts().next().is_none() => Err("a volume cannot be the app's root"),
        _ => Ok(parts().fold(String::new(), |path, part| path + "/" + part)),
    }
}

#[cfg(test)]
mod tests;
