"""What pages share: one HTML file each, which opens offline; its skeleton, style, figures, tables and numbers."""
