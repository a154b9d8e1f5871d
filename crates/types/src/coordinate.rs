//! Network coordinates: where a node is in the space of round-trip times (Vivaldi, with heights and adjustments).

use std::time::Duration;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{NodeName, Refusal};

/// Dimensions of the space, as Serf has them.
pub const DIMENSIONS: usize = 8;
/// The height of a coordinate that has learnt nothing yet, in seconds.
const HEIGHT_MIN: f64 = 10.0e-6;
/// The error of a coordinate that has learnt nothing yet.
const ERROR_MAX: f64 = 1.5;

/// A place in that space; all in seconds but the error, which has no unit.
#[derive(Clone, Debug, PartialEq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Coordinate {
    /// Where it is in the Euclidean part.
    #[n(0)]
    pub vec: Vec<f64>,
    /// How little it is to be trusted.
    #[n(1)]
    pub error: f64,
    /// What is added to every distance, for what the space cannot express.
    #[n(2)]
    pub adjustment: f64,
    /// What its own access adds to every distance.
    #[n(3)]
    pub height: f64,
}

// Only coordinates whose numbers are finite are stored, and those are equal to themselves.
impl Eq for Coordinate {}

impl Default for Coordinate {
    /// A node that has learnt nothing yet.
    fn default() -> Self {
        Self { vec: vec![0.0; DIMENSIONS], error: ERROR_MAX, adjustment: 0.0, height: HEIGHT_MIN }
    }
}

impl Coordinate {
    /// Takes only what distances can be computed with.
    ///
    /// # Errors
    /// Consul's words: a number is infinite or none at all, or the space has other dimensions.
    pub fn check(&self) -> Result<(), Refusal> {
        let finite = self.vec.iter().chain([&self.error, &self.adjustment, &self.height]).all(|it| it.is_finite());
        if !finite {
            return Err(Refusal::failed("invalid coordinate"));
        }
        if self.vec.len() != DIMENSIONS {
            return Err(Refusal::failed("incompatible coordinate"));
        }
        Ok(())
    }

    /// The round-trip time between two nodes in seconds, as Serf estimates it; infinite between different spaces.
    pub fn distance(&self, other: &Self) -> f64 {
        if self.vec.len() != other.vec.len() {
            return f64::INFINITY;
        }
        let squares: f64 = self.vec.iter().zip(&other.vec).map(|(one, other)| (one - other) * (one - other)).sum();
        let raw = squares.sqrt() + self.height + other.height;
        let adjusted = raw + self.adjustment + other.adjustment;
        if adjusted > 0.0 { adjusted } else { raw }
    }

    /// [`Self::distance`] as a duration, cut to nanoseconds as Go cuts it.
    pub fn round_trip(&self, other: &Self) -> Duration {
        Duration::from_nanos((self.distance(other) * 1e9) as u64)
    }
}

/// A coordinate and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[cbor(map)]
#[serde(rename_all = "PascalCase")]
pub struct NodeCoordinate {
    /// The node.
    #[n(0)]
    pub node: NodeName,
    /// Always empty: network segments are an Enterprise feature.
    #[n(1)]
    #[serde(default)]
    pub segment: String,
    /// Where it is.
    #[n(2)]
    pub coord: Coordinate,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(first: f64, height: f64, adjustment: f64) -> Coordinate {
        let mut it = Coordinate { height, adjustment, ..Coordinate::default() };
        it.vec[0] = first;
        it
    }

    #[test]
    fn the_distance_is_serfs() {
        let zero = Coordinate::default();
        assert_eq!(zero.round_trip(&zero), Duration::from_micros(20));
        let mut three = Coordinate { height: 0.0, ..Coordinate::default() };
        (three.vec[0], three.vec[1]) = (0.003, 0.004);
        let origin = Coordinate { height: 0.0, ..Coordinate::default() };
        assert_eq!(origin.round_trip(&three), Duration::from_millis(5));
        assert_eq!(at(0.010, 0.001, 0.002).round_trip(&at(0.0, 0.001, 0.0005)), Duration::from_nanos(14_500_000));
        // An adjustment that would make a distance negative is left away.
        assert_eq!(at(0.010, 0.0, -0.5).round_trip(&origin), Duration::from_millis(10));
        let flat = Coordinate { vec: vec![0.0; 2], ..Coordinate::default() };
        assert_eq!(zero.distance(&flat), f64::INFINITY);
    }

    #[test]
    fn what_cannot_be_computed_with_is_refused() {
        assert!(Coordinate::default().check().is_ok());
        assert_eq!(at(f64::NAN, 0.0, 0.0).check().unwrap_err().text, "invalid coordinate");
        assert_eq!(at(0.0, f64::INFINITY, 0.0).check().unwrap_err().text, "invalid coordinate");
        let flat = Coordinate { vec: vec![0.0; 2], ..Coordinate::default() };
        assert_eq!(flat.check().unwrap_err().text, "incompatible coordinate");
    }
}
