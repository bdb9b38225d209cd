package bench

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Figures are of one side of one row, in one round.
type Figures struct {
	Took  time.Duration // until the program ended
	Whole time.Duration // until all was in the bucket
	Cost  Cost          // of the daemon; of the plain client, only the CPU
	Count Count
	Rate  string // what else is to say, as "1234 reads/s"
	Err   error
}

// Table collects figures and shows them as markdown.
type Table struct {
	mu    sync.Mutex
	order []string
	rows  map[string]*tableRow
}

type tableRow struct {
	section, label, target string
	raw, keifs             []Figures
}

// Add takes the figures of a round of the row of that name.
func (t *Table) Add(name, section, label, target string, raw, keifs Figures) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.rows[name]
	if r == nil {
		r = &tableRow{section: section, label: label, target: target}
		if t.rows == nil {
			t.rows = map[string]*tableRow{}
		}
		t.rows[name] = r
		t.order = append(t.order, name)
	}
	r.raw, r.keifs = append(r.raw, raw), append(r.keifs, keifs)
}

// Empty says whether nothing was added.
func (t *Table) Empty() bool { return len(t.order) == 0 }

// String is the table, medians of the rounds.
func (t *Table) String() string {
	var out strings.Builder
	section := ""
	for _, name := range t.order {
		r := t.rows[name]
		if r.section != section {
			section = r.section
			fmt.Fprintf(&out, "\n### %s\n\n", section)
			out.WriteString("| work | target | plain: s | keifs: s | speed of plain | time of plain | CPU-s (plain) | peak MiB | requests (plain) | MB down, up | |\n")
			out.WriteString("|---|---|---|---|---|---|---|---|---|---|---|\n")
		}
		r.write(&out)
	}
	return strings.TrimLeft(out.String(), "\n")
}

func (r *tableRow) write(out *strings.Builder) {
	for _, f := range slices.Concat(r.raw, r.keifs) {
		if f.Err != nil {
			fmt.Fprintf(out, "| %s | %s | | | | | | | | | %s |\n", r.label, r.target, cell(f.Err.Error()))
			return
		}
	}
	raw, keifs := median(r.raw), median(r.keifs)
	took := fmt.Sprintf("%.2f", keifs.Whole.Seconds())
	if keifs.Took < keifs.Whole {
		took = fmt.Sprintf("%.2f, in the bucket %s", keifs.Took.Seconds(), took)
	}
	ratio := keifs.Whole.Seconds() / raw.Whole.Seconds()
	requests := keifs.Count.String()
	if !maps.Equal(raw.Count.Requests, keifs.Count.Requests) {
		requests = fmt.Sprintf("%s (%s)", cmp.Or(requests, "none"), cmp.Or(raw.Count.String(), "none"))
	}
	note := keifs.Rate
	if raw.Rate != "" {
		note += fmt.Sprintf(" (plain: %s)", raw.Rate)
	}
	fmt.Fprintf(out, "| %s | %s | %.2f | %s | %.2f × | %.2f × | %.2f (%.2f) | %d | %s | %.1f, %.1f | %s |\n",
		r.label, r.target, raw.Whole.Seconds(), took, 1/ratio, ratio,
		keifs.Cost.CPU.Seconds(), raw.Cost.CPU.Seconds(), keifs.Cost.Peak>>20,
		requests, float64(keifs.Count.Down)/1e6, float64(keifs.Count.Up)/1e6, cell(note))
}

// cell is a text that fits into a cell.
func cell(text string) string {
	text = strings.NewReplacer("|", "/", "\n", " ").Replace(text)
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	return strings.ToValidUTF8(text, "")
}

// median is, but for the text, the median of each figure by itself.
func median(rounds []Figures) Figures {
	f := rounds[len(rounds)/2]
	f.Took = middle(rounds, func(f Figures) time.Duration { return f.Took })
	f.Whole = middle(rounds, func(f Figures) time.Duration { return f.Whole })
	f.Cost.CPU = middle(rounds, func(f Figures) time.Duration { return f.Cost.CPU })
	f.Cost.Peak = middle(rounds, func(f Figures) int64 { return f.Cost.Peak })
	f.Count.Up = middle(rounds, func(f Figures) int64 { return f.Count.Up })
	f.Count.Down = middle(rounds, func(f Figures) int64 { return f.Count.Down })
	f.Count.Requests = map[string]int64{}
	for _, r := range rounds {
		for op := range r.Count.Requests {
			if n := middle(rounds, func(f Figures) int64 { return f.Count.Requests[op] }); n > 0 {
				f.Count.Requests[op] = n
			}
		}
	}
	return f
}

func middle[T cmp.Ordered](rounds []Figures, of func(Figures) T) T {
	all := make([]T, len(rounds))
	for i, f := range rounds {
		all[i] = of(f)
	}
	slices.Sort(all)
	return all[len(all)/2]
}

// sortedByCount are the keys, those of the greatest values first.
func sortedByCount(counts map[string]int64) []string {
	return slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
}
