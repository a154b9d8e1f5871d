//! Network coordinates, as answered probes carry them.

use crate::wire::msgpack::{Reader, Writer, fields};
use crate::wire::{MAX_META, WireError};

/// A network coordinate as an answered probe carries it; its vector may have any length here.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct WireCoordinate {
    /// The position, in seconds.
    pub vector: Vec<f64>,
    /// How sure it is.
    pub error: f64,
    /// What to add.
    pub adjustment: f64,
    /// The distance to the core of the network, in seconds.
    pub height: f64,
}

/// The version byte before a coordinate.
const COORDINATE_VERSION: u8 = 1;
/// The most dimensions that are read.
const MAX_DIMENSIONS: usize = 16;

/// Reads the payload of an answered probe.
///
/// # Errors
/// It is no coordinate.
pub fn decode_coordinate(payload: &[u8]) -> Result<WireCoordinate, WireError> {
    let (version, rest) = payload.split_first().ok_or(WireError::Truncated)?;
    if *version != COORDINATE_VERSION || payload.len() > MAX_META {
        return Err(WireError::Kind(*version));
    }
    let mut coordinate = WireCoordinate::default();
    fields(&mut Reader::new(rest), |key, reader| {
        match key {
            b"Vec" => {
                let count = reader.array()?;
                if count > MAX_DIMENSIONS {
                    return Err(WireError::TooLarge { what: "a coordinate's vector", limit: MAX_DIMENSIONS });
                }
                coordinate.vector = (0..count).map(|_| reader.float()).collect::<Result<_, _>>()?;
            }
            b"Error" => coordinate.error = reader.float()?,
            b"Adjustment" => coordinate.adjustment = reader.float()?,
            b"Height" => coordinate.height = reader.float()?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(coordinate)
}

/// Appends the payload of an answered probe.
pub fn encode_coordinate(vector: &[f64], error: f64, adjustment: f64, height: f64, out: &mut Vec<u8>) {
    out.push(COORDINATE_VERSION);
    let mut writer = Writer::new(out);
    writer.map(4).text("Adjustment").float(adjustment).text("Error").float(error).text("Height").float(height);
    writer.text("Vec").array(vector.len());
    for component in vector {
        writer.float(*component);
    }
}
