//! `--dashboard`: draws the curves of a training in the terminal, below the log lines.

use std::io::{self, IsTerminal, Stderr, stderr};
use std::time::{Duration, Instant};

use kiln::UsageError;
use kiln_train::{EpochReport, Event, TrainConfig};
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, LegendPosition, LineGauge, Paragraph, Widget, Wrap};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};

use crate::console;

/// Height in terminal rows.
const HEIGHT: u16 = 16;
/// Minimum time between two redraws, except after a validation.
const PAUSE: Duration = Duration::from_millis(200);

/// The curves, and the part of the terminal that shows them.
#[derive(Debug, Default)]
pub struct Dashboard {
    curves: Curves,
    /// `None` while something else writes to the terminal, and after drawing has failed.
    screen: Option<Terminal<CrosstermBackend<Stderr>>>,
    drawn: Option<Instant>,
    has_failed: bool,
}

impl Dashboard {
    /// # Errors
    /// When standard error is not a terminal.
    pub fn new() -> Result<Self, UsageError> {
        if stderr().is_terminal() {
            return Ok(Self::default());
        }
        Err(UsageError("--dashboard draws in a terminal, and standard error is none; --watch shows a page".to_owned()))
    }

    pub fn show(&mut self, event: &Event, config: &TrainConfig) {
        self.curves.add(event, config);
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= PAUSE);
        if is_due || !matches!(event, Event::Step { .. }) {
            self.attempt(Self::draw);
        }
    }

    /// Writes a log line above the curves.
    pub fn log(&mut self, line: &str) {
        match &mut self.screen {
            Some(screen) => {
                let written = write_above(screen, line);
                self.attempt(|_| written);
            }
            None => console::log(line),
        }
    }

    /// Clears the curves, so that other output can be written to the terminal.
    pub fn leave(&mut self) {
        if let Some(mut screen) = self.screen.take() {
            // Errors are ignored: if the terminal cannot be written, there is nothing to clear.
            let _ = screen.clear().and_then(|()| screen.show_cursor());
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        let screen = match &mut self.screen {
            Some(screen) => screen,
            none => {
                let options = TerminalOptions { viewport: Viewport::Inline(HEIGHT) };
                none.insert(Terminal::with_options(CrosstermBackend::new(stderr()), options)?)
            }
        };
        screen.draw(|frame| self.curves.draw(frame))?;
        self.drawn = Some(Instant::now());
        Ok(())
    }

    /// If the terminal cannot show the curves, the training continues without them.
    fn attempt(&mut self, work: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.has_failed {
            return;
        }
        if let Err(error) = work(self) {
            self.has_failed = true;
            self.leave();
            console::warn(format_args!("the dashboard cannot be drawn: {error}"));
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Writes a line above the curves, wrapped into as many rows as it needs.
fn write_above<B: Backend>(screen: &mut Terminal<B>, line: &str) -> Result<(), B::Error> {
    /// Maximum rows of a line.
    const ROWS: u16 = 64;
    let paragraph = Paragraph::new(line).wrap(Wrap { trim: false });
    let mut trial = Buffer::empty(Rect::new(0, 0, screen.size()?.width, ROWS));
    (&paragraph).render(trial.area, &mut trial);
    let is_written = |row: &u16| (0..trial.area.width).any(|column| trial[(column, *row)].symbol() != " ");
    let rows = (0..ROWS).rev().find(is_written).map_or(1, |last| last + 1);
    screen.insert_before(rows, |buffer| paragraph.render(buffer.area, buffer))
}

/// The state of a training and its history.
#[derive(Debug, Default)]
struct Curves {
    step: usize,
    total_steps: usize,
    loss: f64,
    gradient_norm: f64,
    learning_rate: f64,
    /// The time of the first update that was seen, and its number.
    began: Option<(Instant, usize)>,
    train_loss: Curve,
    validation_loss: Vec<(f64, f64)>,
    metric: Vec<(f64, f64)>,
    metric_name: &'static str,
    best: Option<(usize, f64)>,
}

impl Curves {
    fn add(&mut self, event: &Event, config: &TrainConfig) {
        self.metric_name = config.metric.name();
        match event {
            Event::Started { step, total_steps, epochs } => {
                *self = Self { step: *step, total_steps: *total_steps, ..Self::default() };
                self.metric_name = config.metric.name();
                for report in epochs {
                    self.train_loss.add(report.step as f64, report.train_loss);
                    self.validate(report);
                }
            }
            Event::Step { step, total_steps, loss, gradient_norm, learning_rate } => {
                (self.step, self.total_steps) = (*step, *total_steps);
                (self.loss, self.gradient_norm, self.learning_rate) = (*loss, *gradient_norm, *learning_rate);
                self.began.get_or_insert_with(|| (Instant::now(), *step));
                self.train_loss.add(*step as f64, *loss);
            }
            Event::Epoch(report) => self.validate(report),
        }
    }

    fn validate(&mut self, report: &EpochReport) {
        let at = report.step as f64;
        let number = |name: &str| report.validation.get(name).copied();
        self.validation_loss.extend(number("loss").map(|loss| (at, loss)));
        if let Some(metric) = number(self.metric_name) {
            self.metric.push((at, metric));
            if report.best {
                self.best = Some((report.epoch, metric));
            }
        }
    }

    fn draw(&self, frame: &mut Frame<'_>) {
        let rows = Layout::vertical([Constraint::Length(1), Constraint::Length(1), Constraint::Fill(1)]);
        let [progress, numbers, charts] = rows.areas(frame.area());
        let done = self.step as f64 / self.total_steps.max(1) as f64;
        let label = format!("{}/{}{}", self.step, self.total_steps, self.time_left());
        let gauge = LineGauge::default().ratio(done.clamp(0.0, 1.0)).label(label).filled_style(Color::Green);
        frame.render_widget(gauge, progress);
        frame.render_widget(Paragraph::new(self.numbers()), numbers);
        let [losses, metric] = Layout::horizontal([Constraint::Fill(1); 2]).areas(charts);
        let train = self.train_loss.points();
        let train = Line { name: "train", color: Color::Blue, points: &train };
        let validation = |points| Line { name: "validation", color: Color::Yellow, points };
        self.chart(frame, losses, "loss", &[train, validation(&self.validation_loss)]);
        self.chart(frame, metric, self.metric_name, &[validation(&self.metric)]);
    }

    /// The remaining time at the speed of the updates so far.
    fn time_left(&self) -> String {
        let Some((began, first)) = self.began.filter(|(_, first)| self.step > *first) else {
            return String::new();
        };
        let pace = began.elapsed().as_secs_f64() / (self.step - first) as f64;
        let left = (pace * self.total_steps.saturating_sub(self.step) as f64).round() as u64;
        format!("  {}:{:02}:{:02} left", left / 3600, left / 60 % 60, left % 60)
    }

    fn numbers(&self) -> String {
        let best = self.best.map(|(epoch, metric)| format!("  best {} {metric:.4} in epoch {epoch}", self.metric_name));
        format!(
            "loss {:.4}  gradient norm {:.3}  rate {:.2e}{}",
            self.loss,
            self.gradient_norm,
            self.learning_rate,
            best.unwrap_or_default()
        )
    }

    /// Draws lines over the updates.
    fn chart(&self, frame: &mut Frame<'_>, area: Rect, title: &str, lines: &[Line<'_>]) {
        let numbers = || lines.iter().flat_map(|line| line.points).map(|(_, y)| *y).filter(|y| y.is_finite());
        let (low, high) = (numbers().fold(f64::INFINITY, f64::min), numbers().fold(f64::NEG_INFINITY, f64::max));
        // The axis needs a positive length even with no number, or only one.
        let (low, high) = if low < high {
            (low, high)
        } else if low == high {
            (low - 0.5, high + 0.5)
        } else {
            (0.0, 1.0)
        };
        let sets = lines.iter().map(|Line { name, color, points }| {
            let set = Dataset::default().name(*name).style(*color).data(points);
            set.marker(Marker::Braille).graph_type(GraphType::Line)
        });
        let end = self.total_steps.max(1) as f64;
        let chart = Chart::new(sets.collect())
            .block(Block::bordered().title(title))
            .x_axis(Axis::default().bounds([0.0, end]).labels(["0".to_owned(), format!("{end}")]))
            .y_axis(Axis::default().bounds([low, high]).labels([format!("{low:.3}"), format!("{high:.3}")]))
            .legend_position(Some(LegendPosition::TopRight))
            .hidden_legend_constraints((Constraint::Ratio(1, 2), Constraint::Ratio(1, 2)))
            .style(Style::default());
        frame.render_widget(chart, area);
    }
}

/// A line of a chart; x is the number of the update.
struct Line<'a> {
    name: &'a str,
    color: Color,
    points: &'a [(f64, f64)],
}

/// A curve of any number of points, stored as means of equally many neighbors, with as many means as a terminal can show.
#[derive(Debug)]
struct Curve {
    /// Sums of `width` points; the last one may have fewer.
    sums: Vec<(f64, f64, usize)>,
    width: usize,
}

impl Default for Curve {
    fn default() -> Self {
        Self { sums: Vec::new(), width: 1 }
    }
}

impl Curve {
    /// Number of points that a wide terminal can show.
    const MOST: usize = 256;

    fn add(&mut self, x: f64, y: f64) {
        match self.sums.last_mut().filter(|(_, _, count)| *count < self.width) {
            Some((xs, ys, count)) => (*xs, *ys, *count) = (*xs + x, *ys + y, *count + 1),
            None => self.sums.push((x, y, 1)),
        }
        if self.sums.len() > Self::MOST {
            let pair = |pair: &[(f64, f64, usize)]| {
                pair.iter().fold((0.0, 0.0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1, sum.2 + more.2))
            };
            self.sums = self.sums.chunks(2).map(pair).collect();
            self.width *= 2;
        }
    }

    fn points(&self) -> Vec<(f64, f64)> {
        self.sums.iter().map(|(x, y, count)| (x / *count as f64, y / *count as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;

    use super::*;

    fn report(epoch: usize, accuracy: f64, best: bool) -> EpochReport {
        EpochReport {
            epoch,
            step: epoch * 10,
            train_loss: 0.5,
            train_accuracy: None,
            learning_rate: 1e-5,
            gradient_norm: 1.0,
            seconds: 1.0,
            train_seconds: 1.0,
            best,
            validation: [("loss".to_owned(), 0.4), ("accuracy".to_owned(), accuracy)].into(),
        }
    }

    fn picture(curves: &Curves) -> String {
        let mut terminal = Terminal::new(TestBackend::new(100, HEIGHT)).expect("a terminal in memory");
        terminal.draw(|frame| curves.draw(frame)).expect("it can be drawn");
        terminal.backend().to_string()
    }

    #[test]
    fn the_state_of_a_training_is_drawn() {
        let (mut curves, config) = (Curves::default(), TrainConfig::default());
        curves.add(&Event::Started { step: 10, total_steps: 40, epochs: vec![report(1, 0.75, true)] }, &config);
        let (loss, gradient_norm, learning_rate) = (0.125, 2.5, 3e-5);
        for step in 11..=20 {
            curves.add(&Event::Step { step, total_steps: 40, loss, gradient_norm, learning_rate }, &config);
        }
        curves.add(&Event::Epoch(report(2, 0.875, true)), &config);
        curves.add(&Event::Epoch(report(3, 0.8125, false)), &config);
        let picture = picture(&curves);
        for words in [
            "20/40",
            "left",
            "loss 0.1250  gradient norm 2.500  rate 3.00e-5  best accuracy 0.8750 in epoch 2",
            "train",
            "validation",
            // Both ends of the axes of the losses and of the metric.
            "0.125",
            "0.500",
            "0.750",
            "0.875",
        ] {
            assert!(picture.contains(words), "`{words}` in\n{picture}");
        }
        assert!(picture.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "a line in\n{picture}");
    }

    #[test]
    fn a_line_wider_than_the_terminal_is_written_whole() {
        let options = TerminalOptions { viewport: Viewport::Inline(2) };
        let mut terminal = Terminal::with_options(TestBackend::new(20, 8), options).expect("a terminal in memory");
        for line in ["one two three four five six seven", "", "last"] {
            write_above(&mut terminal, line).expect("there is room");
        }
        terminal.backend().assert_buffer_lines([
            "one two three four  ",
            "five six seven      ",
            "                    ",
            "last                ",
            "                    ",
            "                    ",
            "                    ",
            "                    ",
        ]);
    }

    #[test]
    fn a_training_without_numbers_or_with_infinite_ones_is_drawn_too() {
        let (mut curves, config) = (Curves::default(), TrainConfig::default());
        assert!(picture(&curves).contains("0/0"));
        let (loss, gradient_norm, learning_rate) = (f64::NAN, f64::INFINITY, 0.0);
        curves.add(&Event::Step { step: 1, total_steps: 0, loss, gradient_norm, learning_rate }, &config);
        assert!(picture(&curves).contains("loss NaN"));
    }

    #[test]
    fn a_long_curve_becomes_means_of_neighbors() {
        let mut curve = Curve::default();
        for at in 0..10_000 {
            curve.add(f64::from(at), f64::from(at % 2));
        }
        let points = curve.points();
        assert!((Curve::MOST / 2..=Curve::MOST).contains(&points.len()), "{}", points.len());
        assert_eq!(points[0], (31.5, 0.5));
        assert!(points.is_sorted_by(|a, b| a.0 < b.0));
    }
}
