//! Medians and percentiles.

/// The value below which `fraction` of `samples` lie. Sorts them.
pub(super) fn quantile(samples: &mut [f64], fraction: f64) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    let last = samples.len().saturating_sub(1);
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index into samples, between 0 and last"
    )]
    let index = (last as f64 * fraction).round() as usize;
    samples.get(index).copied().unwrap_or(f64::NAN)
}

/// The middle of `samples`. Sorts them.
pub(super) fn median(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_a_hundred_samples() {
        let mut samples: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert_eq!(median(&mut samples), 51.0);
        assert_eq!(quantile(&mut samples, 0.99), 100.0);
        assert!(median(&mut []).is_nan());
    }
}
