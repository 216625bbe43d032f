//! The figure: each kind of launch as a ratio to a bare exec, over the number of secrets.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::launches::Row;

const COLOURS: [RGBColor; 4] =
    [RGBColor(120, 120, 120), RGBColor(200, 40, 40), RGBColor(40, 90, 200), RGBColor(40, 140, 60)];

/// Draws `rows` as lines on logarithmic axes.
pub(super) fn draw(file: &Path, rows: &[Row]) -> Result<()> {
    if let Some(directory) = file.parent() {
        std::fs::create_dir_all(directory)?;
    }
    draw_chart(file, rows).map_err(|error| anyhow!("{error}"))
}

fn draw_chart(file: &Path, rows: &[Row]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(file, (760, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    let highest = rows.iter().flat_map(|row| &row.kinds).map(|kind| kind.ratio).fold(2.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption("Launch of `true`, ratio to a bare exec with the same environment", ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d((1.0..1_000.0).log_scale(), (0.9..highest * 1.1).log_scale())?;
    chart.configure_mesh().x_desc("secrets of 64 bytes").y_desc("ratio of medians").draw()?;
    let kinds = rows.first().map_or(0, |row| row.kinds.len());
    for (i, colour) in COLOURS.into_iter().enumerate().take(kinds) {
        let points = rows.iter().map(|row| (row.count as f64, row.kinds[i].ratio));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)).point_size(3))?
            .label(rows[0].kinds[i].name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    area.present()?;
    Ok(())
}
