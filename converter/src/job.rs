//! From a request to its answer.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};

use hull_converter_protocol::{Answer, BUFFER_SIZE, Kind, Request, UNCOMPRESSED_MAX, Window};
use hull_jail::Sealed;

use crate::Error;
use crate::decompress::uncompressed;
use crate::error::{reading, way_out, writing};
use crate::{convert, list, look};

/// Does what is asked of `files`, which only a process in its jail may do.
pub fn carry_out(_: &Sealed, request: &Request, files: &[File]) -> Answer {
    done(request, files)
        .unwrap_or_else(|error| Answer::Failed { kind: *error.kind(), text: hull_errors::chain(&error) })
}

fn done(request: &Request, files: &[File]) -> Result<Answer, Error> {
    match (request, files) {
        (Request::Convert { id, layers }, [inputs @ .., output]) if inputs.len() == layers.len() => {
            convert::convert(id, layers.iter().zip(inputs), output)?;
            Ok(Answer::Converted)
        }
        (Request::Uncompress { name, start, end }, [input, output]) => {
            uncompress(name, Window::new(input, *start, *end), output)?;
            Ok(Answer::Uncompressed)
        }
        (Request::Look { name }, [file]) => look::look(name, file),
        (Request::List { name }, [file]) => Ok(Answer::Listed(list::list(name, file)?)),
        (Request::Manifest { name }, [file]) => Ok(Answer::Manifest(look::manifest(name, file)?)),
        _ => Err(Error::new(Kind::Host, format!("read a request: {} files do not fit it", files.len()))),
    }
}

fn uncompress(name: &str, input: Window<'_>, mut output: &File) -> Result<(), Error> {
    let budget = Cell::new(UNCOMPRESSED_MAX);
    let cannot_read = |e| Error::because(reading(&e), format!("uncompress {name}"), e);
    let mut plain = uncompressed(input, &budget).map_err(cannot_read)?;
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let count = match plain.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(cannot_read(e)),
        };
        output.write_all(&buffer[..count]).map_err(|e| {
            Error::because(writing(&e), format!("hand on what {name} holds{}", way_out(&e)), e)
        })?;
    }
}
