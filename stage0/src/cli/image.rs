//! The words of `hull image`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand, ValueEnum, ValueHint};

use super::Format;
use super::fetch::FetchArgs;
use crate::complete::stored_image;

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the images of the store
    List(ImageListArgs),
    /// Print what an image says of itself
    CatManifest(CatManifestArgs),
    /// Write an image to a file or folder, as it came
    Export(ExportArgs),
    /// Write the files of an image to a folder, without those of the images it depends on
    Extract(ExtractArgs),
    /// Write the files of an image to a folder, as a pod sees them
    Render(ExtractArgs),
    /// Check images, and mend their file systems
    Verify(ImagesArgs),
    /// Remove images that no pod uses
    Rm(ImagesArgs),
    /// Remove images that were not used for long, and what nobody needs
    Gc(ImageGcArgs),
    #[command(hide = true)]
    Fetch(FetchArgs),
}

impl ImageCommand {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::List(_) => "image list",
            Self::CatManifest(_) => "image cat-manifest",
            Self::Export(_) => "image export",
            Self::Extract(_) => "image extract",
            Self::Render(_) => "image render",
            Self::Verify(_) => "image verify",
            Self::Rm(_) => "image rm",
            Self::Gc(_) => "image gc",
            Self::Fetch(_) => "image fetch",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct ImageListArgs {
    /// What to show of each image, separated by commas
    #[arg(
        long, value_enum, value_name = "FIELD", value_delimiter = ',',
        default_values = ["id", "name", "size", "importtime", "lastused"]
    )]
    pub(crate) fields: Vec<Field>,
    /// What the order is by, separated by commas
    #[arg(long, value_enum, value_name = "FIELD", value_delimiter = ',', default_values = ["importtime"])]
    pub(crate) sort: Vec<SortField>,
    /// Upwards or downwards
    #[arg(long, value_enum, value_name = "ORDER", default_value = "asc")]
    pub(crate) order: Order,
    /// Print no headings
    #[arg(long)]
    pub(crate) no_legend: bool,
    /// Print whole ids, sizes and times
    #[arg(long)]
    pub(crate) full: bool,
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
}

/// A column of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Field {
    Id,
    Name,
    Size,
    ImportTime,
    LastUsed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum SortField {
    Name,
    ImportTime,
    LastUsed,
    Size,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    Asc,
    Desc,
}

#[derive(Debug, Args)]
pub(crate) struct CatManifestArgs {
    /// Indent it; without, it is printed byte for byte
    #[arg(
        long, value_name = "BOOL", action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_value_t = true, default_missing_value = "true"
    )]
    pub(crate) pretty_print: bool,
    /// Print the configuration of an OCI or Docker image, not its manifest
    #[arg(long)]
    pub(crate) config: bool,
    #[command(flatten)]
    pub(crate) image: ImageArg,
}

#[derive(Debug, Args)]
pub(crate) struct ImageArg {
    /// The image: its id, the beginning of that, or its name
    #[arg(value_name = "IMAGE", add = stored_image())]
    pub(crate) image: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Replace what is there
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// What OUTPUT becomes [default: as it says, else aci for an ACI and oci-archive for others]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<ExportFormat>,
    #[command(flatten)]
    pub(crate) image: ImageArg,
    /// A path, oci:DIRECTORY[:TAG] or oci-archive:FILE[:TAG]
    #[arg(value_name = "OUTPUT", value_hint = ValueHint::AnyPath)]
    pub(crate) output: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The archive of an App Container Image, uncompressed
    Aci,
    /// An OCI image layout in a directory
    Oci,
    /// Such a layout in a tar archive
    OciArchive,
}

#[derive(Debug, Args)]
pub(crate) struct ExtractArgs {
    /// Write the files only, without manifest and rootfs folder
    #[arg(long)]
    pub(crate) rootfs_only: bool,
    /// Replace what is there
    #[arg(long)]
    pub(crate) overwrite: bool,
    #[command(flatten)]
    pub(crate) image: ImageArg,
    /// The folder, which is made
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ImagesArgs {
    /// The images: their ids, the beginnings of those, or their names
    #[arg(value_name = "IMAGE", required = true, add = stored_image())]
    pub(crate) images: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ImageGcArgs {
    /// How long an image is kept after its last use
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = humantime::parse_duration)]
    pub(crate) grace_period: Duration,
}
