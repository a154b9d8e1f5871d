//! Network coordinates: where this member lies, so that the round-trip time between any two can be told without asking them.
//!
//! Vivaldi in eight dimensions with a height, an adjustment term and a median filter per peer, with Serf's constants.
//!
//! Invariants
//! - A coordinate is finite: one that is not is refused from others and reset here.

use std::collections::HashMap;
use std::time::Duration;

use lictor_runtime::Rng;

use crate::members::Place;
use crate::wire::serf::WireCoordinate;

/// How many dimensions a coordinate has.
pub const DIMENSIONS: usize = 8;
const LARGEST_ERROR: f64 = 1.5;
const ERROR_GAIN: f64 = 0.25;
const POSITION_GAIN: f64 = 0.25;
const ADJUSTMENT_WINDOW: usize = 20;
const SMALLEST_HEIGHT: f64 = 10.0e-6;
const FILTER: usize = 3;
const GRAVITY: f64 = 150.0;
const ZERO: f64 = 1.0e-6;
/// A round-trip time beyond this is not believed.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(10);

/// A position in the network. All lengths are seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coordinate {
    /// The position.
    pub vector: [f64; DIMENSIONS],
    /// How sure it is: less is surer.
    pub error: f64,
    /// What to add to distances.
    pub adjustment: f64,
    /// The distance to the core of the network.
    pub height: f64,
}

impl Default for Coordinate {
    fn default() -> Self {
        Self { vector: [0.0; DIMENSIONS], error: LARGEST_ERROR, adjustment: 0.0, height: SMALLEST_HEIGHT }
    }
}

impl Coordinate {
    /// The coordinate that was read, if it has eight dimensions and is finite.
    pub(crate) fn from_wire(wire: &WireCoordinate) -> Option<Self> {
        let vector = <[f64; DIMENSIONS]>::try_from(wire.vector.as_slice()).ok()?;
        let read = Self { vector, error: wire.error, adjustment: wire.adjustment, height: wire.height };
        read.is_finite().then_some(read)
    }

    fn is_finite(&self) -> bool {
        self.vector.iter().all(|it| it.is_finite())
            && self.error.is_finite()
            && self.adjustment.is_finite()
            && self.height.is_finite()
    }

    fn raw_distance(&self, other: &Self) -> f64 {
        length(&difference(&self.vector, &other.vector)) + self.height + other.height
    }

    /// The round-trip time to a member there, in seconds.
    pub fn distance(&self, other: &Self) -> f64 {
        let raw = self.raw_distance(other);
        let adjusted = raw + self.adjustment + other.adjustment;
        if adjusted > 0.0 { adjusted } else { raw }
    }

    /// Moved away from `other` by `force`, or towards it when that is negative.
    fn pushed(&self, force: f64, other: &Self, rng: &dyn Rng) -> Self {
        let apart = difference(&self.vector, &other.vector);
        let magnitude = length(&apart);
        let (unit, apart_at_all) =
            if magnitude > ZERO { (apart.map(|it| it / magnitude), true) } else { (random_unit(rng), false) };
        let mut moved = *self;
        for (component, unit) in moved.vector.iter_mut().zip(unit) {
            *component += unit * force;
        }
        if apart_at_all {
            moved.height = ((self.height + other.height) * force / magnitude + self.height).max(SMALLEST_HEIGHT);
        }
        moved
    }
}

fn difference(one: &[f64; DIMENSIONS], other: &[f64; DIMENSIONS]) -> [f64; DIMENSIONS] {
    std::array::from_fn(|at| one[at] - other[at])
}

fn length(vector: &[f64; DIMENSIONS]) -> f64 {
    vector.iter().map(|it| it * it).sum::<f64>().sqrt()
}

fn random_unit(rng: &dyn Rng) -> [f64; DIMENSIONS] {
    let random = std::array::from_fn(|_| rng.below(1 << 32) as f64 / (1u64 << 32) as f64 - 0.5);
    let magnitude = length(&random);
    if magnitude > ZERO {
        return random.map(|it| it / magnitude);
    }
    std::array::from_fn(|at| if at == 0 { 1.0 } else { 0.0 })
}

/// This member's own coordinate, and what it remembers of others to keep it true.
#[derive(Debug, Default)]
pub(crate) struct Locator {
    own: Coordinate,
    samples: [f64; ADJUSTMENT_WINDOW],
    next_sample: usize,
    resets: u64,
    peers: HashMap<Place, Peer>,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    coordinate: Coordinate,
    round_trips: [f64; FILTER],
    count: u8,
}

impl Locator {
    pub(crate) fn own(&self) -> Coordinate {
        self.own
    }

    pub(crate) fn resets(&self) -> u64 {
        self.resets
    }

    /// Where that member said it was.
    pub(crate) fn of(&self, place: Place) -> Option<Coordinate> {
        self.peers.get(&place).map(|peer| peer.coordinate)
    }

    pub(crate) fn forget(&mut self, place: Place) {
        self.peers.remove(&place);
    }

    /// A member there answered after this time.
    pub(crate) fn observe(&mut self, place: Place, other: Coordinate, round_trip: Duration, rng: &dyn Rng) {
        if round_trip > LONGEST_ROUND_TRIP {
            return;
        }
        let seconds = self.filtered(place, other, round_trip.as_secs_f64());
        self.attract(&other, seconds, rng);
        self.samples[self.next_sample] = seconds - self.own.raw_distance(&other);
        self.next_sample = (self.next_sample + 1) % ADJUSTMENT_WINDOW;
        self.own.adjustment = self.samples.iter().sum::<f64>() / (2.0 * ADJUSTMENT_WINDOW as f64);
        let origin = Coordinate::default();
        let distance = origin.distance(&self.own);
        self.own = self.own.pushed(-(distance / GRAVITY).powi(2), &origin, rng);
        if !self.own.is_finite() {
            self.resets += 1;
            self.own = Coordinate::default();
        }
    }

    /// The median of the last round trips to that member.
    fn filtered(&mut self, place: Place, coordinate: Coordinate, seconds: f64) -> f64 {
        let peer = self.peers.entry(place).or_insert(Peer { coordinate, round_trips: [0.0; FILTER], count: 0 });
        peer.coordinate = coordinate;
        if usize::from(peer.count) == FILTER {
            peer.round_trips.rotate_left(1);
            peer.count -= 1;
        }
        peer.round_trips[usize::from(peer.count)] = seconds;
        peer.count += 1;
        let mut sorted = peer.round_trips;
        let known = &mut sorted[..usize::from(peer.count)];
        known.sort_unstable_by(f64::total_cmp);
        known[known.len() / 2]
    }

    fn attract(&mut self, other: &Coordinate, seconds: f64, rng: &dyn Rng) {
        let distance = self.own.distance(other);
        let seconds = seconds.max(ZERO);
        let wrongness = (distance - seconds).abs() / seconds;
        let weight = self.own.error / (self.own.error + other.error).max(ZERO);
        let error = ERROR_GAIN * weight * wrongness + self.own.error * (1.0 - ERROR_GAIN * weight);
        self.own.error = error.min(LARGEST_ERROR);
        self.own = self.own.pushed(POSITION_GAIN * weight * (seconds - distance), other, rng);
    }
}

#[cfg(test)]
mod tests {
    use lictor_runtime::SeededRng;

    use super::*;

    /// Ten members on a line, 10 ms apart: after some minutes of probes everybody can tell every distance.
    #[test]
    fn members_on_a_line_learn_their_distances() {
        let (rng, count) = (SeededRng::new(3), 10usize);
        let mut locators: Vec<Locator> = (0..count).map(|_| Locator::default()).collect();
        for _ in 0..2_000 {
            for one in 0..count {
                let other = (one + 1 + rng.below(count as u64 - 1) as usize) % count;
                let round_trip = Duration::from_millis(10 * one.abs_diff(other) as u64);
                let coordinate = locators[other].own();
                locators[one].observe(other as Place, coordinate, round_trip, &rng);
            }
        }
        let mut worst = 0.0f64;
        for one in 0..count {
            for other in 0..one {
                let truth = 0.010 * (one - other) as f64;
                let guess = locators[one].own().distance(&locators[other].own());
                worst = worst.max((guess - truth).abs() / truth);
            }
        }
        assert!(worst < 0.25, "the worst guess is {:.0} % wrong", worst * 100.0);
    }

    #[test]
    fn a_coordinate_that_is_not_finite_is_refused() {
        let mut wire = WireCoordinate { vector: vec![0.0; 8], error: 1.0, adjustment: 0.0, height: 0.1 };
        assert!(Coordinate::from_wire(&wire).is_some());
        wire.vector[3] = f64::NAN;
        assert!(Coordinate::from_wire(&wire).is_none());
        wire.vector = vec![0.0; 7];
        assert!(Coordinate::from_wire(&wire).is_none());
    }

    #[test]
    fn one_slow_answer_among_fast_ones_moves_nothing() {
        let (rng, mut locator) = (SeededRng::new(3), Locator::default());
        let other = Coordinate { vector: [0.005, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], ..Coordinate::default() };
        for _ in 0..200 {
            locator.observe(1, other, Duration::from_millis(5), &rng);
        }
        let before = locator.own().distance(&other);
        locator.observe(1, other, Duration::from_secs(5), &rng);
        assert!((locator.own().distance(&other) - before).abs() < 0.001);
        locator.observe(1, other, Duration::from_secs(11), &rng);
    }
}
