//! Images: references, the content store, and the conversion of layers to one EROFS file.
//!
//! The way of an image: a [`Reference`] names it, [`Store::import`] copies its blobs into the store
//! while hashing them ([`blobs`]), and only then are they parsed and their layers turned into one
//! read-only file system ([`convert`]). Whatever is an archive is read by a process of its own
//! ([`Converter`]), never by this crate.
#![forbid(unsafe_code)]

mod aci;
mod acis;
pub mod appc;
mod blobs;
mod catalog;
mod config;
mod convert;
mod converter;
mod digest;
mod docker;
mod document;
mod error;
mod export;
mod extract;
mod fetch;
mod folders;
#[doc(hidden)]
pub mod fuzzing;
mod gc;
mod import;
mod lock;
mod member;
mod names;
mod oci;
mod options;
mod progress;
mod record;
mod reference;
pub mod registry;
mod settings;
mod signers;
mod staging;
mod store;
mod temporary;
mod transport;
pub mod trust;
mod verify;

pub use appc::{Distribution, Name};
pub use catalog::{Documents, ImageInfo};
pub use config::{EventHandler, ImageConfig, MountPoint, Port};
pub use converter::Converter;
pub use digest::{IdPrefix, ImageId};
pub use error::{Error, Kind};
pub use export::ExportTo;
pub use extract::Parts;
pub use fetch::Fetcher;
pub use gc::{GcReport, Removal};
pub use lock::Hold;
pub use names::NamedImage;
pub use options::{FetchOptions, Insecure, PullPolicy, SettingsFolders};
pub use progress::{Progress, Quiet, Transfer};
pub use record::ImageKind;
pub use reference::{PlainName, Reference};
pub use registry::Name as RegistryName;
pub use settings::{Ids, Settings, Stage1};
pub use staging::{Existing, Staged};
pub use store::{Image, Imported, Store};
pub use verify::{Findings, Verification};
