//! Layers in, EROFS image out: asked of a process of its own.

use std::fs::File;
use std::os::fd::AsFd;

use hull_converter_protocol::{Answer, Request};
pub(crate) use hull_converter_protocol::{Flavour, LAYERS_MAX};

use crate::Error;
use crate::blobs::Verified;
use crate::converter::Converter;
use crate::digest::ImageId;

/// One layer: a tar archive, compressed or not.
pub(crate) struct Layer {
    pub(crate) blob: Verified,
    pub(crate) flavour: Flavour,
}

/// Writes the image `id` to `output`, an empty file.
pub(crate) fn convert(
    converter: &Converter,
    id: &ImageId,
    layers: Vec<Layer>,
    output: &File,
) -> Result<(), Error> {
    let describe = |layer: &Layer| hull_converter_protocol::Layer {
        digest: layer.blob.digest().clone(),
        flavour: layer.flavour.clone(),
    };
    let request = Request::Convert { id: id.clone(), layers: layers.iter().map(describe).collect() };
    let blobs: Vec<File> = layers.into_iter().map(|layer| layer.blob.reader()).collect();
    let files: Vec<_> = blobs.iter().chain([output]).map(AsFd::as_fd).collect();
    let doing = || format!("convert image {id}");
    match converter.ask(&request, &files, doing)? {
        Answer::Converted => Ok(()),
        _ => Err(converter.senseless(&doing())),
    }
}
