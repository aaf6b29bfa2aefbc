package simulate

import "time"

// buckets is how many there are of a history at the most: more than a plot has pixels to show.
const buckets = 1024

// History is what a simulation looked like over time, in equal buckets of it. Its memory is bounded: when there are too
// many buckets, neighbours become one.
type History struct {
	// Width is how long a bucket is.
	Width time.Duration
	// Buckets are in the order of time.
	Buckets []Bucket

	level Bucket
}

// Bucket holds the most that there was of each at once.
type Bucket struct {
	// Waiting are the items whose work had not begun, Jobs the unfinished Jobs, Working those that worked on an item.
	Waiting, Jobs, Working int32
}

func (b Bucket) most(other Bucket) Bucket {
	return Bucket{max(b.Waiting, other.Waiting), max(b.Jobs, other.Jobs), max(b.Working, other.Working)}
}

// add notes how much there is from now on.
func (h *History) add(now time.Duration, waiting, jobs, working int) {
	h.reach(now)
	h.level = Bucket{int32(waiting), int32(jobs), int32(working)}
	last := len(h.Buckets) - 1
	h.Buckets[last] = h.Buckets[last].most(h.level)
}

// until returns the history up to a time.
func (h *History) until(end time.Duration) History {
	h.reach(end)
	return History{Width: h.Width, Buckets: h.Buckets[:int(end/h.Width)+1]}
}

// reach fills the buckets up to the one of that time: what there was last, there is still.
func (h *History) reach(now time.Duration) {
	if h.Width == 0 {
		h.Width = time.Millisecond
	}
	for now/h.Width >= buckets {
		h.halve()
	}
	for len(h.Buckets) <= int(now/h.Width) {
		h.Buckets = append(h.Buckets, h.level)
	}
}

// halve makes one bucket of each two.
func (h *History) halve() {
	h.Width *= 2
	for i := range (len(h.Buckets) + 1) / 2 {
		h.Buckets[i] = h.Buckets[2*i]
		if 2*i+1 < len(h.Buckets) {
			h.Buckets[i] = h.Buckets[i].most(h.Buckets[2*i+1])
		}
	}
	h.Buckets = h.Buckets[:(len(h.Buckets)+1)/2]
}
