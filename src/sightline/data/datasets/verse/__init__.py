"""VerSe: CTs of spines with the centres, masks and fracture grades of their vertebrae."""
