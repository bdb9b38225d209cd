package store

import (
	"math/rand/v2"
	"testing"
)

func TestPatchSendsWhatChangedInPartsThatAStoreTakes(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		size, least := 1+random.Int64N(10_000), 1+random.Int64N(500)
		limit := random.Int64N(size + 1)
		var changed []Range
		for range random.IntN(6) {
			off := random.Int64N(size)
			changed = append(changed, Range{off, random.Int64N(min(300, size-off) + 1)})
		}
		parts := patchParts(size, 3*least, 10*least, sentRanges(size, limit, least, changed))
		at := int64(0)
		for i, part := range parts {
			if part.Off != at || part.Len <= 0 {
				t.Fatalf("a gap or overlap at %d: %+v", at, parts)
			}
			at = part.End()
			if part.Len < least && i+1 < len(parts) {
				t.Fatalf("size %d, limit %d, least %d, %+v: part %d is too small in %+v", size, limit, least, changed, i, parts)
			}
			if !part.copied {
				continue
			}
			if part.End() > limit {
				t.Fatalf("copied from behind the end at %d: %+v", limit, parts)
			}
			for _, c := range changed {
				if c.Len > 0 && c.Off < part.End() && part.Off < c.End() {
					t.Fatalf("%+v has changed and is copied: %+v", c, parts)
				}
			}
		}
		if at != size {
			t.Fatalf("%d bytes of %d: %+v", at, size, parts)
		}
	}
}

func TestPatchOfALargeFileMovesLittle(t *testing.T) {
	const mib = 1 << 20
	for name, test := range map[string]struct {
		size, limit int64
		changed     []Range
		sent        int64
		parts       int
	}{
		"append a byte":   {256*mib + 1, 256 * mib, nil, 1, 2},
		"change 4 KiB":    {256 * mib, 256 * mib, []Range{{100 * mib, 4096}}, 5 * mib, 3},
		"at the begin":    {256 * mib, 256 * mib, []Range{{0, 4096}}, 5 * mib, 2},
		"near the begin":  {256 * mib, 256 * mib, []Range{{mib, 4096}}, 6 * mib, 2},
		"truncate":        {100 * mib, 100 * mib, nil, 0, 1},
		"two at one time": {256 * mib, 256 * mib, []Range{{100 * mib, 4096}, {103 * mib, 4096}}, 8 * mib, 3},
	} {
		parts := patchParts(test.size, 16*mib, 256*mib, sentRanges(test.size, test.limit, 5*mib, test.changed))
		var sent int64
		for _, r := range (Patch{parts}).Local() {
			sent += r.Len
		}
		if sent != test.sent || len(parts) != test.parts {
			t.Errorf("%s: %d bytes in %d parts, want %d in %d", name, sent, len(parts), test.sent, test.parts)
		}
	}
}
