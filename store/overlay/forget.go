package overlay

// Forget makes the next question about any branch go to the bucket, for who
// knows that a ref has changed.
func (b *Bucket) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, l := range b.layers {
		l.forget()
	}
}
