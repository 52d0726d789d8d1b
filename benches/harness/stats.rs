//! Medians, and ratios of what ran side by side.

use serde_json::{Value, json};

/// What one command took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    /// From before it is started until after it has been waited for, in microseconds.
    pub wall: f64,
    /// User and system time of it and of all it waited for, in microseconds.
    pub cpu: f64,
    /// Page faults without I/O.
    pub faults: f64,
}

impl std::ops::Add for Sample {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { wall: self.wall + other.wall, cpu: self.cpu + other.cpu, faults: self.faults + other.faults }
    }
}

/// A value below which the fraction `at` of `values` lies (nearest rank); 0 of none.
pub fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (at * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(0.0)
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The median of a/b over the rounds in which both ran: what slows the machine down for a while slows both.
pub fn paired_ratio(a: &[f64], b: &[f64]) -> Option<f64> {
    let ratios: Vec<f64> = a.iter().zip(b).filter(|(_, b)| **b > 0.0).map(|(a, b)| a / b).collect();
    (!ratios.is_empty()).then(|| median(&ratios))
}

/// Median and spread, as the report and the pictures want them.
pub fn summary(values: &[f64]) -> Value {
    json!({
        "n": values.len(), "median": median(values), "min": quantile(values, 0.0), "p25": quantile(values, 0.25),
        "p75": quantile(values, 0.75), "p99": quantile(values, 0.99), "max": quantile(values, 1.0),
    })
}

/// The same order for everybody who starts from the same number: a contender never always runs after the same other.
#[derive(Debug)]
pub struct Shuffle(pub u64);

impl Shuffle {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn order(&mut self, length: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..length).collect();
        for last in (1..length).rev() {
            order.swap(last, (self.next() % (last as u64 + 1)) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = [5.0, 1.0, 4.0, 2.0];
        assert_eq!(median(&values), 2.0);
        assert_eq!((quantile(&values, 0.0), quantile(&values, 0.99), quantile(&values, 1.0)), (1.0, 5.0, 5.0));
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_ratio_is_taken_pair_by_pair() {
        // The second round was ten times slower for both; the third is cut off.
        assert_eq!(paired_ratio(&[1.0, 10.0, 7.0], &[2.0, 20.0]), Some(0.5));
        assert_eq!(paired_ratio(&[1.0], &[0.0]), None);
    }

    #[test]
    fn an_order_has_everybody_once() {
        let mut shuffle = Shuffle(1);
        for _ in 0..20 {
            let mut order = shuffle.order(5);
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4]);
        }
    }
}
