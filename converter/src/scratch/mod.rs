//! Room on disk for what a conversion must remember, so that an image of any size needs the same memory.
//!
//! It lies in the output itself, behind the largest image there can be, and goes when the image gets its
//! length. Whoever dies meanwhile leaves nothing but an unfinished output.
//!
//! ```text
//! 0               START                                     +REGION         +2    +3     END
//! | image (grows) | pages: nodes of the tree | names of the tree | bytes | ... | tails |
//! ```

mod index;
mod pages;
mod tails;
#[cfg(test)]
mod tests;

pub(crate) use index::{Child, Cursor, Index};
pub(crate) use pages::{PAGE, Pages, Region};
pub(crate) use tails::{Tail, Tails, TailsReader};

use crate::erofs::IMAGE_SIZE_MAX;
use crate::tree::ENTRIES_MAX;

/// Where it begins in the output.
const START: u64 = IMAGE_SIZE_MAX;

/// Largest region of pages.
const REGION_SIZE: u64 = 4 << 30;

/// Where the contents of short files are kept.
const TAILS_START: u64 = START + Region::COUNT as u64 * REGION_SIZE;

/// Nothing of the output lies beyond.
pub(crate) const END: u64 = TAILS_START + ENTRIES_MAX as u64 * crate::erofs::BLOCK;
