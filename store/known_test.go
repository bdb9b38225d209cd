package store

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/backend/mem"
)

// Listings are believed about what is older than the first attributes that
// keifs stored in the branch, and about nothing else.
func TestAListingIsCompleteWhereKeifsStoredNoAttributes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		raw := mem.New(t.Name(), mem.Options{Seconds: true})
		reader := benchOver(t, raw, Options{Attrs: AttrsAuto})
		writer := benchOver(t, raw, Options{Attrs: AttrsAuto})
		reader.put("main/old", "x")
		reader.put("main/dir/old", "x")
		listed := func(b *bench) map[string]Entry {
			all := map[string]Entry{}
			for e, err := range b.List(t.Context(), Path{}) {
				ok(t, err)
				all[e.Name] = e
			}
			return all
		}
		for name, e := range listed(reader) {
			looked, err := reader.Lookup(t.Context(), reader.path(name))
			ok(t, err)
			if e.Partial || !e.Listed || e.Mode != looked.Mode || !e.Mtime.Equal(looked.Mtime) || e.Size != looked.Size {
				t.Errorf("without a record: %+v, looked up %+v", e, looked)
			}
		}
		time.Sleep(2 * clockSlack)
		attr := Attr{Mode: ModeRegular | 0o600, Mtime: time.Unix(1, 5)}
		_, err := writer.Publish(t.Context(), writer.path("new"), backend.Bytes([]byte("y")), PublishOptions{Attr: attr})
		ok(t, err)
		time.Sleep(absentFor + time.Second)
		for _, b := range []*bench{reader, writer, benchOver(t, raw, Options{Attrs: AttrsAuto})} {
			all := listed(b)
			if e := all["old"]; e.Partial || !e.Listed {
				t.Errorf("what is older than the record: %+v", e)
			}
			if !all["new"].Partial || !all["dir"].Partial {
				t.Errorf("what may have attributes: %+v, %+v", all["new"], all["dir"])
			}
		}
		if e := listed(benchOver(t, raw, Options{Attrs: AttrsList}))["new"]; e.Partial {
			t.Errorf("by listings only: %+v", e)
		}
		if e := listed(benchOver(t, raw, Options{Attrs: AttrsHead}))["old"]; !e.Partial {
			t.Errorf("by the objects only: %+v", e)
		}
		// The record is written once, before the object.
		writer.in.ResetRequests()
		_, err = writer.Publish(t.Context(), writer.path("newer"), backend.Bytes(nil), PublishOptions{Attr: attr})
		ok(t, err)
		if n := writer.in.Count("put"); n != 1 {
			t.Errorf("%d requests for one more file: %q", n, writer.in.Requests())
		}
	})
}
