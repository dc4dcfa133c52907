//! Charts as inline SVG, which takes its text colour from the page.

use plotters::prelude::*;

use crate::Reliability;

/// A line of a chart.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub name: String,
    /// Pairs of epoch and value, with possible gaps.
    pub points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (460, 260);

/// Colours that colour-blind readers can distinguish, on light and dark pages (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// A chart of lines over the epochs; `None` if there is no finite point.
pub(crate) fn lines(title: &str, lines: &[Line]) -> Option<String> {
    let points = || lines.iter().flat_map(|line| &line.points).filter(|(_, value)| value.is_finite());
    let last = points().map(|(epoch, _)| *epoch).max_by(f64::total_cmp)?;
    let first = points().map(|(epoch, _)| *epoch).fold(1.0, f64::min);
    let (low, high) =
        points().fold((f64::MAX, f64::MIN), |(low, high), (_, value)| (low.min(*value), high.max(*value)));
    let margin = ((high - low) * 0.08).max(high.abs() * 1e-3).max(1e-9);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(52)
            .build_cartesian_2d(first..last.max(first + 0.001), low - margin..high + margin)
            .ok()?;
        let is_whole = |epoch: &f64| if epoch.fract() == 0.0 { format!("{epoch:.0}") } else { String::new() };
        let mesh = &mut chart.configure_mesh();
        mesh.disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.15))
            .x_label_formatter(&is_whole);
        mesh.x_labels((last.ceil() as usize).clamp(1, 10))
            .y_labels(5)
            .label_style(("sans-serif", 13))
            .x_desc("epoch")
            .draw()
            .ok()?;
        for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            chart.draw_series([PathElement::new(line.points.clone(), colour.stroke_width(2))]).ok()?;
            chart.draw_series(line.points.iter().map(|&point| Circle::new(point, 3, colour.filled()))).ok()?;
        }
        area.present().ok()?;
    }
    let legend: String = lines
        .iter()
        .zip(COLOURS.iter().cycle())
        .map(|(line, RGBColor(r, g, b))| {
            format!("<span style=\"color:rgb({r},{g},{b})\">●</span> {} ", escape(&line.name))
        })
        .collect();
    Some(figure(title, &svg, &legend))
}

/// A reliability diagram: accuracy by confidence. Bars that end on the diagonal are calibrated.
pub(crate) fn reliability(title: &str, bins: &[Reliability]) -> Option<String> {
    if bins.iter().all(|bin| bin.examples == 0) {
        return None;
    }
    let width = 1.0 / bins.len() as f64;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(52)
            .build_cartesian_2d(0f64..1f64, 0f64..1f64)
            .ok()?;
        let mesh = &mut chart.configure_mesh();
        mesh.disable_x_mesh().light_line_style(TRANSPARENT).bold_line_style(BLACK.mix(0.15)).x_labels(6).y_labels(6);
        mesh.label_style(("sans-serif", 13)).x_desc("confidence").y_desc("accuracy").draw().ok()?;
        let bars = bins.iter().enumerate().filter(|(_, bin)| bin.examples > 0).map(|(at, bin)| {
            let left = at as f64 * width;
            Rectangle::new(
                [(left + width * 0.06, 0.0), (left + width * 0.94, bin.accuracy)],
                COLOURS[0].mix(0.75).filled(),
            )
        });
        chart.draw_series(bars).ok()?;
        chart.draw_series([PathElement::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.6))]).ok()?;
        area.present().ok()?;
    }
    Some(figure(title, &svg, "The line is where confidence and accuracy are equal."))
}

/// Wraps a chart in a `figure` element with its title and a caption.
fn figure(title: &str, svg: &str, caption: &str) -> String {
    let title = escape(title);
    let described = format!("<svg role=\"img\" aria-label=\"{title}\" ");
    let svg = svg.replace("#000000", "currentColor").replacen("<svg ", &described, 1);
    format!("<figure><h3>{title}</h3>{svg}<figcaption>{caption}</figcaption></figure>\n")
}

pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_legend_and_follow_the_page_s_colour() {
        let line = |name: &str, values: &[f64]| Line {
            name: name.to_owned(),
            points: (1..).map(f64::from).zip(values.iter().copied()).collect(),
        };
        let chart = lines("Loss", &[line("train <x>", &[0.7, 0.5, 0.3]), line("validation", &[0.6, f64::NAN, 0.5])]);
        let chart = chart.expect("there are points");
        assert!(chart.contains("train &lt;x&gt;") && chart.contains("currentColor") && !chart.contains("#000000"));
        assert!(chart.matches("<circle").count() >= 5, "{chart}");
        assert!(lines("One", &[line("x", &[0.5])]).is_some(), "one epoch is a point");
        assert_eq!(lines("None", &[line("x", &[]), line("y", &[f64::NAN])]), None);
    }

    #[test]
    fn bins_without_examples_have_no_bar() {
        let bin = |examples, accuracy| Reliability { examples, confidence: 0.5, accuracy };
        let chart = reliability("x", &[bin(0, 0.0), bin(3, 0.5), bin(2, 1.0)]).expect("there are examples");
        assert_eq!(chart.matches("<rect").count(), 2, "{chart}");
        assert_eq!(reliability("x", &[bin(0, 0.0)]), None);
    }
}
