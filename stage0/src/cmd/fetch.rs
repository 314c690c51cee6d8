//! `hull fetch`, and how every command that needs an image gets it.

use std::path::Path;
use std::process::ExitCode;

use hull_errors::Doing;
use hull_image::{FetchOptions, Fetcher, Image, ImageId, Progress, PullPolicy, Quiet, Reference, Store};

use crate::cli::fetch::{FetchArgs, FetchWishes};
use crate::host::Host;
use crate::progress::OnStderr;
use crate::{Error, Kind};

/// How many digits of an id are printed where nobody asked for all, as rkt's.
const SHORT_ID: usize = 32;

pub(crate) fn fetch(args: &FetchArgs, host: &Host) -> Result<ExitCode, Error> {
    if args.signature.is_some() && args.images.len() > 1 {
        let text = "--signature is that of one image; fetch the others by a command of their own";
        return Err(Error::new(Kind::User, text));
    }
    let store = host.images()?;
    let wanted = Wanted::new(&args.wishes, PullPolicy::Update, host);
    for text in &args.images {
        let image = wanted.fetch(text, args.signature.as_deref(), &store)?;
        println!("{}", if args.full { image.id.to_string() } else { short_id(&image.id, SHORT_ID) });
    }
    Ok(ExitCode::SUCCESS)
}

/// The algorithm and the first digits of an id.
pub(super) fn short_id(id: &ImageId, digits: usize) -> String {
    let text = id.as_str();
    let end = text.find('-').map_or(text.len(), |dash| text.len().min(dash + 1 + digits));
    text[..end].to_owned()
}

/// How images are wanted.
pub(super) struct Wanted<'a> {
    host: &'a Host,
    options: FetchOptions,
    progress: Box<dyn Progress>,
}

impl<'a> Wanted<'a> {
    /// What was wished, with `default` where no policy was.
    pub(super) fn new(wishes: &FetchWishes, default: PullPolicy, host: &'a Host) -> Self {
        let options = FetchOptions {
            pull: wishes.pull_policy().map_or(default, PullPolicy::from),
            insecure: host.insecure,
            signature: None,
            trust_keys_from_https: host.trust_keys_from_https,
        };
        Self {
            host,
            options,
            progress: if wishes.quiet { Box::new(Quiet) } else { Box::new(OnStderr::default()) },
        }
    }

    /// `signature` is the file of the detached one, where the user has named it.
    pub(super) fn fetch(&self, text: &str, signature: Option<&Path>, store: &Store) -> Result<Image, Error> {
        let doing = || format!("use image {text}");
        let reference: Reference = text.parse().doing(Kind::User, doing)?;
        let options = FetchOptions { signature: signature.map(Path::to_owned), ..self.options.clone() };
        let fetcher =
            Fetcher { store, settings: &self.host.settings, options: &options, progress: &*self.progress };
        Ok(fetcher.fetch(&reference).doing(Kind::User, doing)?.image)
    }
}
