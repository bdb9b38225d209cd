package fakegcs

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// listing is an answer to a listing.
type listing struct {
	Items         []json.RawMessage `json:"items,omitempty"`
	Prefixes      []string          `json:"prefixes,omitempty"`
	NextPageToken string            `json:"nextPageToken,omitempty"`
}

// list answers a listing page by page. The server counts no prefixes, and
// repeats them on the next page.
func (p *proxy) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	token, limit := query.Get("pageToken"), 1000
	if n, err := strconv.Atoi(query.Get("maxResults")); err == nil && n > 0 {
		limit = n
	}
	entries, err := p.everything(r.URL.Path, query)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	var page listing
	last := ""
	for _, e := range entries {
		if token != "" && e.name <= token {
			continue
		}
		if len(page.Items)+len(page.Prefixes) == limit {
			page.NextPageToken = last
			break
		}
		if last = e.name; e.item == nil {
			page.Prefixes = append(page.Prefixes, e.name)
		} else {
			page.Items = append(page.Items, e.item)
		}
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(page)
}

type entry struct {
	name string
	item json.RawMessage // nil for a prefix
}

// everything is the whole listing, in order.
func (p *proxy) everything(path string, query url.Values) ([]entry, error) {
	query.Del("fields")
	query.Del("pageToken")
	query.Del("maxResults")
	var entries []entry
	seen := map[string]bool{}
	for {
		resp, err := http.Get(p.server + path + "?" + query.Encode())
		if err != nil {
			return nil, err
		}
		var page listing
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, errNoBucket
		}
		for _, item := range page.Items {
			var o struct{ Name string }
			if err := json.Unmarshal(item, &o); err != nil {
				return nil, err
			}
			entries = append(entries, entry{o.Name, item})
		}
		for _, prefix := range page.Prefixes {
			if !seen[prefix] {
				seen[prefix] = true
				entries = append(entries, entry{prefix, nil})
			}
		}
		if page.NextPageToken == "" {
			break
		}
		query.Set("pageToken", page.NextPageToken)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return entries, nil
}
