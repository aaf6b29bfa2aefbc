package simulate

import (
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Panel is one simulation in a plot.
type Panel struct {
	// Title says which one it is.
	Title string
	// Limit is how many Jobs there could be at once.
	Limit int64
	// Reaction is when decisions were made. Panels with the same limit and reaction have the same scales.
	Reaction Reaction
	Result
}

// Sizes in pixels. A panel has two charts side by side: the items that wait, and the Jobs.
const (
	marginLeft   = 62
	chartWidth   = 400
	chartGap     = 74
	marginRight  = 18
	headHeight   = 92
	titleHeight  = 24
	chartHeight  = 96
	panelHeight  = titleHeight + chartHeight + 44
	plotWidth    = marginLeft + chartWidth + chartGap + chartWidth + marginRight
	jobsLeft     = marginLeft + chartWidth + chartGap
	ticksAcross  = 6
	ticksUpright = 3
)

// Colours that the colour-blind can tell apart as well.
const (
	colourWaiting = "#56b4e9"
	colourJobs    = "#f0c36d"
	colourWorking = "#b35900"
	colourLimit   = "#555"
)

// Plot draws simulations below each other, as SVG: how many items waited and how many Jobs there were over time.
func Plot(title, subtitle string, panels []Panel) []byte {
	var end time.Duration
	for _, p := range panels {
		end = max(end, p.Done)
	}
	across := newTimeAxis(end)
	d := drawing{}
	height := headHeight + panelHeight*len(panels)
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" `+
		`font-family="sans-serif" font-size="11" fill="#222">`, plotWidth, height, plotWidth, height)
	d.printf(`<title>%s</title>`, escape(title))
	d.printf(`<rect width="100%%" height="100%%" fill="#fff"/>`)
	d.text(marginLeft, 24, `font-size="16" font-weight="bold"`, title)
	d.text(marginLeft, 43, "", subtitle)
	d.key(marginLeft, colourWaiting, "items whose work has not begun; one scale for each limit and reaction")
	d.key(jobsLeft, colourJobs, "unfinished Jobs")
	d.key(jobsLeft+120, colourWorking, "of these at work")
	d.printf(`<path d="M%d 66h18" stroke="%s" stroke-dasharray="4 3"/>`, jobsLeft+240, colourLimit)
	d.text(jobsLeft+264, 70, "", "limit")
	for i, p := range panels {
		waiting, jobs := 0.0, float64(p.Limit)
		for _, other := range panels {
			if other.Limit == p.Limit && other.Reaction == p.Reaction {
				waiting = max(waiting, float64(other.LongestQueue))
			}
		}
		top := headHeight + i*panelHeight
		d.text(marginLeft, top+8, `font-weight="bold"`, p.Title)
		columns := p.History.columns(chartWidth, across.end)
		items := chart{left: marginLeft, top: top + titleHeight, across: across, upright: newAxis(waiting, ticksUpright)}
		items.frame(&d, "items")
		items.area(&d, columns, colourWaiting, func(b Bucket) int32 { return b.Waiting })
		work := chart{left: jobsLeft, top: top + titleHeight, across: across, upright: newAxis(jobs, ticksUpright)}
		work.frame(&d, "Jobs")
		work.area(&d, columns, colourJobs, func(b Bucket) int32 { return b.Jobs })
		work.area(&d, columns, colourWorking, func(b Bucket) int32 { return b.Working })
		d.printf(`<path d="M%d %sh%d" stroke="%s" stroke-dasharray="4 3"/>`,
			work.left, decimal(work.y(float64(p.Limit))), chartWidth, colourLimit)
	}
	d.printf("</svg>")
	return []byte(d.String())
}

// drawing collects the lines of an SVG file.
type drawing struct{ strings.Builder }

func (d *drawing) printf(format string, args ...any) {
	_, _ = fmt.Fprintf(d, format+"\n", args...) // a strings.Builder takes everything
}

func (d *drawing) text(x, y int, attributes, text string) {
	d.printf(`<text x="%d" y="%d" %s>%s</text>`, x, y, attributes, escape(text))
}

// key explains a colour.
func (d *drawing) key(x int, colour, text string) {
	d.printf(`<rect x="%d" y="60" width="18" height="11" fill="%s"/>`, x, colour)
	d.text(x+24, 70, "", text)
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}

// decimal is a coordinate.
func decimal(f float64) string { return strconv.FormatFloat(math.Round(f*10)/10, 'f', -1, 64) }

// chart is one pair of axes.
type chart struct {
	left, top int
	across    axis
	upright   axis
}

func (c chart) x(value float64) float64 { return float64(c.left) + chartWidth*value/c.across.end }

func (c chart) y(value float64) float64 {
	return float64(c.top) + chartHeight*(1-min(1, value/c.upright.end))
}

// frame draws axes and grid.
func (c chart) frame(d *drawing, unit string) {
	bottom := c.top + chartHeight
	for _, tick := range c.upright.ticks() {
		y := decimal(c.y(tick))
		d.printf(`<path d="M%d %sh%d" stroke="#ddd"/>`, c.left, y, chartWidth)
		d.printf(`<text x="%d" y="%s" dy="4" text-anchor="end">%s</text>`, c.left-6, y, c.upright.label(tick))
	}
	for _, tick := range c.across.ticks() {
		x := decimal(c.x(tick))
		d.printf(`<path d="M%s %dv4" stroke="#222"/>`, x, bottom)
		d.printf(`<text x="%s" y="%d" text-anchor="middle">%s</text>`, x, bottom+16, c.across.label(tick))
	}
	d.printf(`<path d="M%d %dV%dh%d" stroke="#222" fill="none"/>`, c.left, c.top, bottom, chartWidth)
	d.printf(`<text transform="translate(%d %d) rotate(-90)" text-anchor="middle">%s</text>`,
		c.left-46, c.top+chartHeight/2, unit)
	d.printf(`<text x="%d" y="%d" text-anchor="end">%s</text>`, c.left+chartWidth, bottom+30, c.across.unit)
}

// area fills what is below a value, of which each column has one.
func (c chart) area(d *drawing, columns []Bucket, colour string, value func(Bucket) int32) {
	var path strings.Builder
	last := int32(0)
	fmt.Fprintf(&path, "M%d %d", c.left, c.top+chartHeight)
	for i, column := range columns {
		if v := value(column); v != last {
			fmt.Fprintf(&path, "H%dV%s", c.left+i, decimal(c.y(float64(v))))
			last = v
		}
	}
	d.printf(`<path d="%sH%dV%dz" fill="%s"/>`, path.String(), c.left+len(columns), c.top+chartHeight, colour)
}

// columns makes a history as long as the number of pixels for the seconds; it ends with the history itself.
func (h History) columns(pixels int, seconds float64) []Bucket {
	var columns []Bucket
	wide := h.Width.Seconds() / seconds * float64(pixels) // of a bucket, in columns
	for i, bucket := range h.Buckets {
		end := min(pixels, int(math.Ceil(float64(i+1)*wide)))
		for column := int(float64(i) * wide); column < end; column++ {
			if column == len(columns) {
				columns = append(columns, Bucket{})
			}
			columns[column] = columns[column].most(bucket)
		}
	}
	return columns
}

// axis runs from 0 to end, which is not 0.
type axis struct {
	end, step float64
	// scale is how much of the axis one unit of its labels is.
	scale float64
	unit  string
}

// newAxis returns one that is a little longer than the value, with about as many round ticks.
func newAxis(most float64, ticks int) axis {
	a := axis{scale: 1, step: 1}
	raw := max(1, most) / float64(ticks)
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	for _, round := range []float64{1, 2, 5, 10} {
		if a.step = round * power; a.step >= raw {
			break
		}
	}
	a.step = max(1, a.step) // nothing is counted in parts
	a.end = max(1, most) * 1.05
	return a
}

// newTimeAxis returns one of seconds with labels in a unit that keeps them short.
func newTimeAxis(end time.Duration) axis {
	seconds := max(1, end.Seconds())
	units := []struct {
		name    string
		seconds float64
	}{{"seconds from the start", 1}, {"minutes from the start", 60}, {"hours from the start", 3600},
		{"days from the start", 24 * 3600}}
	unit := units[0]
	for _, larger := range units[1:] {
		if seconds >= 3*larger.seconds {
			unit = larger
		}
	}
	a := newAxis(seconds/unit.seconds, ticksAcross)
	return axis{end: seconds, step: a.step * unit.seconds, scale: unit.seconds, unit: unit.name}
}

func (a axis) ticks() (ticks []float64) {
	for i := 0; float64(i)*a.step <= a.end; i++ {
		ticks = append(ticks, float64(i)*a.step)
	}
	return ticks
}

// label writes a tick without more digits than it needs: 2500 is 2.5k.
func (a axis) label(tick float64) string {
	value, suffix := tick/a.scale, ""
	switch {
	case value >= 1e6:
		value, suffix = value/1e6, "M"
	case value >= 1e4:
		value, suffix = value/1e3, "k"
	}
	return strconv.FormatFloat(value, 'g', 6, 64) + suffix
}
