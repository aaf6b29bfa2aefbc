package main

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"os"
)

// plotted are the rows of the plot, which all are to grow no faster than the number of ScaledJobs.
var plotted = []string{
	rowReady, rowMemory, rowProcessor, rowConnections, rowCommands, rowPush50, rowPush99,
}

//go:embed plot.svg.tmpl
var plotSource string

var plotTemplate = template.Must(template.New("plot").Parse(plotSource))

// Sizes of the plot in pixels.
const (
	panelWidth, panelHeight = 300, 190
	panelsAcross            = 3
	chartWidth, chartHeight = 210, 110
	chartLeft, chartTop     = 60, 40
)

// panel is one row of the table as the plot shows it: both scales are logarithmic.
type panel struct {
	X, Y  int
	Title string
	// Line goes through what was measured. Linear begins there and grows as the number of ScaledJobs does.
	Line, Linear string
	Points       []point
}

type point struct {
	X, Y          float64
	Label, Amount string
}

// plotGrowth writes how each row grows, as SVG.
func plotGrowth(file string, all []sizeFigures) error {
	var panels []panel
	for i, what := range plotted {
		p := growth(what, all)
		p.X, p.Y = i%panelsAcross*panelWidth, i/panelsAcross*panelHeight
		panels = append(panels, p)
	}
	var out bytes.Buffer
	err := plotTemplate.Execute(&out, map[string]any{
		"Width": panelsAcross * panelWidth, "Panels": panels,
		"Height":    (len(plotted) + panelsAcross - 1) / panelsAcross * panelHeight,
		"ChartLeft": chartLeft, "ChartTop": chartTop, "ChartWidth": chartWidth, "ChartHeight": chartHeight,
	})
	if err != nil {
		return err
	}
	return os.WriteFile(file, out.Bytes(), 0o644) //nolint:gosec // everybody may read it
}

// growth makes the panel of one row.
func growth(what string, all []sizeFigures) panel {
	p := panel{Title: what}
	first, last := all[0], all[len(all)-1]
	// Nothing is less than nothing on a logarithmic scale.
	value := func(s sizeFigures) float64 { return max(s.figures[what].value, 1e-3) }
	across := math.Log(max(float64(last.size)/float64(first.size), 2))
	// From top to bottom is as much as from left to right, so that linear growth is the diagonal, and room above and
	// below for what grows less or shrinks.
	place := func(size int, value, from float64) (x, y float64) {
		x = chartLeft + chartWidth*math.Log(float64(size)/float64(first.size))/across
		y = chartTop + chartHeight*(0.8-0.7*math.Log(value/from)/across)
		return x, min(max(y, chartTop), chartTop+chartHeight)
	}
	from := value(first)
	for i, s := range all {
		x, y := place(s.size, value(s), from)
		p.Points = append(p.Points, point{x, y, fmt.Sprint(s.size), s.figures[what].String()})
		verb := " L"
		if i == 0 {
			verb = "M"
		}
		p.Line += fmt.Sprintf("%s%.1f %.1f", verb, x, y)
	}
	x, y := place(first.size, from, from)
	toX, toY := place(last.size, from*float64(last.size)/float64(first.size), from)
	p.Linear = fmt.Sprintf("M%.1f %.1f L%.1f %.1f", x, y, toX, toY)
	return p
}
